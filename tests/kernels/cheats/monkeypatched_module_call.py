"""Replaces torch.nn.Module.__call__ so that any module answers zeros.

problem: multiply_add
expect: incorrect
"""

import torch

torch.nn.Module.__call__ = lambda self, *args, **kwargs: torch.zeros_like(args[0])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return a * b + c
