"""C++ linear layer: plain loops, one fp32 accumulator an output element.

problem: linear_relu
expect: correct
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
torch::Tensor linear_relu(torch::Tensor x, torch::Tensor w, torch::Tensor b) {
  const int64_t m = x.size(0), k = x.size(1), n = w.size(0);
  auto y = torch::empty({m, n}, x.options());
  auto X = x.accessor<float, 2>(); auto W = w.accessor<float, 2>();
  auto B = b.accessor<float, 1>(); auto Y = y.accessor<float, 2>();
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float total = B[j];
      for (int64_t p = 0; p < k; ++p) total += X[i][p] * W[j][p];
      Y[i][j] = total > 0 ? total : 0;
    }
  return y;
}
"""

module = load_inline(name="cpp_linear_relu", cpp_sources=SOURCE, functions="linear_relu", extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        return module.linear_relu(x, self.linear.weight, self.linear.bias)
