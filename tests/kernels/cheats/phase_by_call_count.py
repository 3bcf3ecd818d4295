"""Right for the first calls, then wrong and fast.

problem: multiply_add
expect: incorrect
"""

import torch
import triton
import triton.language as tl


@triton.jit
def multiply_add_kernel(a_ptr, b_ptr, c_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    a = tl.load(a_ptr + offsets, mask=mask)
    b = tl.load(b_ptr + offsets, mask=mask)
    c = tl.load(c_ptr + offsets, mask=mask)
    tl.store(y_ptr + offsets, a * b + c, mask=mask)


CALLS = [0]


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        CALLS[0] += 1
        if CALLS[0] > 2:
            return torch.zeros_like(a)
        y = torch.empty_like(a)
        n = a.numel()
        multiply_add_kernel[(triton.cdiv(n, 2048),)](a, b, c, y, n, BLOCK=2048)
        return y
