"""C++ RMS norm with a double accumulator, writing into an output that Python allocated.

problem: rms_norm
expect: correct
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <cmath>

void rms_norm(torch::Tensor x, torch::Tensor w, torch::Tensor y, double eps) {
  const int64_t rows = x.size(0), columns = x.size(1);
  const float* a = x.data_ptr<float>();
  const float* s = w.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    double total = 0;
    for (int64_t i = 0; i < columns; ++i) total += double(a[r * columns + i]) * a[r * columns + i];
    const float scale = float(1.0 / std::sqrt(total / columns + eps));
    for (int64_t i = 0; i < columns; ++i) b[r * columns + i] = a[r * columns + i] * scale * s[i];
  }
}
"""

module = load_inline(
    name="cpp_rms_norm",
    cpp_sources=SOURCE,
    functions=["rms_norm"],
    extra_cflags=["-O3", "-fopenmp"],
    extra_ldflags=["-lgomp"],
)


class ModelNew(torch.nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(size) + 0.5)
        self.eps = eps

    def forward(self, x):
        y = torch.empty_like(x)
        module.rms_norm(x, self.weight, y, self.eps)
        return y
