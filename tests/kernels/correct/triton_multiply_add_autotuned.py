"""Triton elementwise kernel under `triton.autotune`, as most people write it.

problem: multiply_add
expect: correct
"""

import torch
import triton
import triton.language as tl


@triton.autotune(configs=[triton.Config({"BLOCK": 512}), triton.Config({"BLOCK": 2048})], key=["n"])
@triton.jit
def multiply_add_kernel(a_ptr, b_ptr, c_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    a = tl.load(a_ptr + offsets, mask=mask)
    b = tl.load(b_ptr + offsets, mask=mask)
    c = tl.load(c_ptr + offsets, mask=mask)
    tl.store(y_ptr + offsets, a * b + c, mask=mask)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty_like(a)
        n = a.numel()
        multiply_add_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](a, b, c, y, n)
        return y
