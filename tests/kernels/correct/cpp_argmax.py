"""C++ argmax: the first of equal elements wins, as in torch.

problem: row_argmax
expect: correct
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
torch::Tensor row_argmax(torch::Tensor x) {
  const int64_t rows = x.size(0), columns = x.size(1);
  auto y = torch::empty({rows}, x.options().dtype(torch::kLong));
  const float* a = x.data_ptr<float>();
  int64_t* b = y.data_ptr<int64_t>();
  for (int64_t r = 0; r < rows; ++r) {
    int64_t best = 0;
    for (int64_t i = 1; i < columns; ++i)
      if (a[r * columns + i] > a[r * columns + best]) best = i;
    b[r] = best;
  }
  return y;
}
"""

module = load_inline(name="cpp_argmax", cpp_sources=SOURCE, functions=["row_argmax"], extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.row_argmax(x)
