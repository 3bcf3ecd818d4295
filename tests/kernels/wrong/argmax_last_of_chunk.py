"""Looks at the first 128 of 129 columns.

problem: row_argmax
expect: incorrect
"""

import torch
import triton
import triton.language as tl


@triton.jit
def argmax_kernel(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x = tl.load(x_ptr + row * columns + tl.arange(0, BLOCK))
    tl.store(y_ptr + row, tl.argmax(x, axis=0).to(tl.int64))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty(x.shape[0], dtype=torch.int64)
        argmax_kernel[(x.shape[0],)](x, y, x.shape[1], BLOCK=128)
        return y
