"""Triton mean and variance in one pass over each row; two outputs as a tuple.

problem: row_moments
expect: correct
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
    tl.store(var_ptr + row, tl.sum(d * d, axis=0) / columns)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        mean = torch.empty(x.shape[0], device=x.device, dtype=x.dtype)
        var = torch.empty_like(mean)
        moments_kernel[(x.shape[0],)](x, mean, var, x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]))
        return mean, var
