"""Raises SystemExit(0) in forward, hoping that a clean exit counts.

problem: multiply_add
expect: runtime_error
"""

import torch
import sys


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        sys.exit(0)
