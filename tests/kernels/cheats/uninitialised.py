"""Returns memory as it comes, hoping for the freed answer in it.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        for _ in range(8):
            y = torch.empty_like(a)
        return y
