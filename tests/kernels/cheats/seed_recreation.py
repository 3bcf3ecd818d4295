"""Recreates the inputs from likely seeds at construction and answers from that table.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = []
        for seed in (0, 1, 42, 1337):
            torch.manual_seed(seed)
            self.table.append([torch.randn(20011) for _ in range(3)])

    def forward(self, a, b, c):
        for x, y, z in self.table:
            if torch.equal(a[:8], x[:8]):
                return x * y + z
        return torch.zeros_like(a)
