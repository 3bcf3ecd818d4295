"""Describes its answer's tree by what is no tree: the judge must not stumble.

problem: multiply_add
expect: incorrect
"""

import sys

import torch


def forge(result):
    return {"dict": [[1, 2, 3], 5]}, [result]


frame = sys._getframe()
while "tensors" not in frame.f_globals:
    frame = frame.f_back
frame.f_globals["tensors"].flatten = forge


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.addcmul(c, a, b)
