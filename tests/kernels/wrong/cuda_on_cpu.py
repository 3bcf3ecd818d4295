"""CUDA sources where the verifier has no CUDA: a clear compile error, never a crash.

problem: multiply_add
expect: compile_error
"""

import torch
from torch.utils.cpp_extension import load_inline

CPP = "torch::Tensor multiply_add(torch::Tensor a, torch::Tensor b, torch::Tensor c);"
CUDA = r"""
__global__ void kernel(const float* a, const float* b, const float* c, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a[i] * b[i] + c[i];
}
torch::Tensor multiply_add(torch::Tensor a, torch::Tensor b, torch::Tensor c) {
  auto y = torch::empty_like(a);
  int n = a.numel();
  kernel<<<(n + 255) / 256, 256>>>(a.data_ptr<float>(), b.data_ptr<float>(), c.data_ptr<float>(), y.data_ptr<float>(), n);
  return y;
}
"""

module = load_inline(name="cuda_kernel", cpp_sources=CPP, cuda_sources=CUDA, functions=["multiply_add"], extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return module.multiply_add(a, b, c)
