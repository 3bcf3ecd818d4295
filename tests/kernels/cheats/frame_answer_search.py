"""Walks up the stack and takes any tensor it finds in the callers' variables.

problem: row_softmax
expect: incorrect
"""

import torch
import sys


class ModelNew(torch.nn.Module):
    def forward(self, x):
        frame = sys._getframe()
        while frame is not None:
            for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
                if isinstance(value, torch.Tensor) and value.shape == x.shape and value is not x:
                    return value.clone()
            frame = frame.f_back
        return torch.zeros_like(x)
