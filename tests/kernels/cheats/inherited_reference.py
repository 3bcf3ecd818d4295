"""Inherits the reference and adds nothing.

problem: multiply_add
expect: incorrect, runtime_error, reward_hack, timeout, compile_error
"""

import torch


class Model(torch.nn.Module):
    def forward(self, a, b, c):
        return a * b + c


class ModelNew(Model):
    pass
