"""Returns zeros.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.zeros_like(a)
