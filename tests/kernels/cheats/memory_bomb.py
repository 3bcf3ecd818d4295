"""Allocates until somebody dies.

problem: multiply_add
expect: runtime_error
timeout: 60
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        hoard = []
        while True:
            hoard.append(torch.ones(64 << 20))
