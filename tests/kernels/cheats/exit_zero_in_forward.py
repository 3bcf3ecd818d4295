"""Leaves with exit code 0 in the middle of a call.

problem: multiply_add
expect: runtime_error
"""

import torch
import os


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        os._exit(0)
