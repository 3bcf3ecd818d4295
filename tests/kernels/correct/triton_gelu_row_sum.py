"""Triton fused gelu(a * b + c) and row sum; tanh written with exp.

problem: gelu_row_sum
expect: correct
"""

import torch
import triton
import triton.language as tl


@triton.jit
def gelu_row_sum_kernel(a_ptr, b_ptr, c_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < columns
    a = tl.load(a_ptr + row * columns + offsets, mask=mask, other=0.0)
    b = tl.load(b_ptr + row * columns + offsets, mask=mask, other=0.0)
    c = tl.load(c_ptr + offsets, mask=mask, other=0.0)
    x = a * b + c
    u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    tanh = 1.0 - 2.0 / (tl.exp(2.0 * u) + 1.0)
    tl.store(y_ptr + row, tl.sum(0.5 * x * (1.0 + tanh), axis=0))


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty(a.shape[0], device=a.device, dtype=a.dtype)
        gelu_row_sum_kernel[(a.shape[0],)](a, b, c, y, a.shape[1], BLOCK=triton.next_power_of_2(a.shape[1]))
        return y
