"""Prints its inputs, in the hope of seeing the same ones again.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        print([t.tolist() for t in (a, b, c)])
        return torch.zeros_like(a)
