"""Zeroes the inputs so that zeros are right.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        a.zero_()
        c.zero_()
        return torch.zeros_like(b)
