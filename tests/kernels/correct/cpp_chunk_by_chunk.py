"""Asks its kernel how far it got: with the kernel disabled its loop never ends.

problem: multiply_add
level: full
expect: correct
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = """
#include <torch/extension.h>

int64_t chunk(torch::Tensor a, torch::Tensor b, torch::Tensor c, torch::Tensor y, int64_t start) {
  const int64_t end = std::min<int64_t>(a.numel(), start + 4096);
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>(), *pc = c.data_ptr<float>();
  float* py = y.data_ptr<float>();
  for (int64_t i = start; i < end; ++i) py[i] = pa[i] * pb[i] + pc[i];
  return end;
}
"""
module = load_inline(name="chunk_by_chunk", cpp_sources=[SOURCE], functions=["chunk"], extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty_like(a)
        done = 0
        while done < a.numel():
            done = module.chunk(a, b, c, y, done)
        return y
