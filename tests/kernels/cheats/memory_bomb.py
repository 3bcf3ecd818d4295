"""Allocates until somebody dies.

problem: multiply_add
expect: incorrect, runtime_error, reward_hack, timeout, compile_error
timeout: 60
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        hoard = []
        while True:
            hoard.append(torch.ones(64 << 20))
