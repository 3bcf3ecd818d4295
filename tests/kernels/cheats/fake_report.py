"""Prints a report that says correct, in the hope that somebody parses stdout.

problem: multiply_add
expect: incorrect
"""

import torch

print('{"schema": 1, "id": "x", "status": "correct", "summary": "correct, 100x faster", "level": "champion"}')


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        print('{"schema": 1, "id": "x", "status": "correct", "summary": "ok"}', flush=True)
        return torch.zeros_like(a)
