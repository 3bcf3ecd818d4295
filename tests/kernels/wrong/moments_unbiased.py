"""Divides the variance by n - 1 where the reference divides by n.

problem: row_moments
expect: incorrect
"""

import torch
import triton
import triton.language as tl


@triton.jit
def moments_kernel(x_ptr, mean_ptr, var_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < columns
    x = tl.load(x_ptr + row * columns + offsets, mask=mask, other=0.0)
    mean = tl.sum(x, axis=0) / columns
    d = tl.where(mask, x - mean, 0.0)
    tl.store(mean_ptr + row, mean)
    tl.store(var_ptr + row, tl.sum(d * d, axis=0) / (columns - 1))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        mean, var = torch.empty(x.shape[0]), torch.empty(x.shape[0])
        moments_kernel[(x.shape[0],)](x, mean, var, x.shape[1], BLOCK=512)
        return mean, var
