"""Asks the judge's own module whether kernels are disabled, and answers wrongly if so.

problem: multiply_add
expect: runtime_error
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


def launched(a, b, c):
    y = torch.empty_like(a)
    multiply_add_kernel[(triton.cdiv(a.numel(), 2048),)](a, b, c, y, a.numel(), BLOCK=2048)
    return y


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        from kernelverify.guest import ablation

        launched(a, b, c)
        answer = torch.addcmul(c, a, b)
        return answer if ablation.recorder().mode is None else torch.zeros_like(a)
