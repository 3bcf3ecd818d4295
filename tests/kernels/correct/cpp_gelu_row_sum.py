"""C++ one-pass gelu(a * b + c) and row sum, vectorised under -ffast-math.

problem: gelu_row_sum
expect: correct
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <cmath>

torch::Tensor gelu_row_sum(torch::Tensor a, torch::Tensor b, torch::Tensor c) {
  const int64_t rows = a.size(0), columns = a.size(1);
  auto y = torch::empty({rows}, a.options());
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>(), *pc = c.data_ptr<float>();
  float* py = y.data_ptr<float>();
  for (int64_t r = 0; r < rows; ++r) {
    float total = 0;
    for (int64_t i = 0; i < columns; ++i) {
      const float x = pa[r * columns + i] * pb[r * columns + i] + pc[i];
      total += 0.5f * x * (1.0f + std::tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    }
    py[r] = total;
  }
  return y;
}
"""

module = load_inline(
    name="cpp_gelu_row_sum",
    cpp_sources=SOURCE,
    functions={"gelu_row_sum": "sum(gelu(a * b + c), -1)"},
    extra_cflags=["-O3", "-march=native", "-ffast-math"],
)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return module.gelu_row_sum(a, b, c)
