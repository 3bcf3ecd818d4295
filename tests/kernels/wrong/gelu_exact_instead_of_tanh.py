"""Uses the sigmoid approximation of GELU where the reference uses tanh: 1 % off.

problem: gelu_row_sum
expect: incorrect
"""

import torch
import triton
import triton.language as tl


@triton.jit
def kernel(a_ptr, b_ptr, c_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < columns
    a = tl.load(a_ptr + row * columns + offsets, mask=mask, other=0.0)
    b = tl.load(b_ptr + row * columns + offsets, mask=mask, other=0.0)
    c = tl.load(c_ptr + offsets, mask=mask, other=0.0)
    x = a * b + c
    tl.store(y_ptr + row, tl.sum(x / (1.0 + tl.exp(-1.702 * x)), axis=0))


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty(a.shape[0])
        kernel[(a.shape[0],)](a, b, c, y, a.shape[1], BLOCK=1024)
        return y
