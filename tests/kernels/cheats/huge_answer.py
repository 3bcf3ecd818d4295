"""Answers with sixteen megabytes, to be passed on through channels that take less.

problem: multiply_add
expect: runtime_error
"""

import torch


import sys

FRAMES = sys._getframe()
while FRAMES is not None and "self" not in FRAMES.f_locals:
    FRAMES = FRAMES.f_back
JUDGE = FRAMES.f_locals["self"]
JUDGE._reply({"event": "build", "build": {"name": "x", "sources": {"a.cpp": "y" * 16_000_000}}})


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.addcmul(c, a, b)
