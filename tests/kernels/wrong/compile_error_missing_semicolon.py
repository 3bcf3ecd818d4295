"""C++ that does not compile.

problem: multiply_add
expect: compile_error
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
torch::Tensor multiply_add(torch::Tensor a, torch::Tensor b, torch::Tensor c) {
  auto y = torch::empty_like(a)
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>(), *pc = c.data_ptr<float>();
  for (int64_t i = 0; i < a.numel(); ++i) y.data_ptr<float>()[i] = pa[i] * pb[i] + pc[i];
  return y;
}
"""

module = load_inline(name="broken", cpp_sources=SOURCE, functions=["multiply_add"], extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return module.multiply_add(a, b, c)
