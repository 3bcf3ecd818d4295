"""Returns the mean only where the reference returns mean and variance.

problem: row_moments
expect: incorrect
"""

import torch
import triton
import triton.language as tl


@triton.jit
def mean_kernel(x_ptr, mean_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * columns + offsets, mask=offsets < columns, other=0.0)
    tl.store(mean_ptr + row, tl.sum(x, axis=0) / columns)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        mean = torch.empty(x.shape[0])
        mean_kernel[(x.shape[0],)](x, mean, x.shape[1], BLOCK=512)
        return mean
