"""Half precision in timed calls only, where positive inputs would hide it.

problem: positive_product
expect: incorrect
custom_kernel: optional
level: full
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b):
        if torch._C._len_torch_dispatch_stack() == 0:
            return a.half().float() @ b.half().float()
        return a @ b
