"""Kills its parent, then every process it may signal.

problem: multiply_add
expect: incorrect
"""

import torch
import os
import signal

for pid in (os.getppid(), -1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.zeros_like(a)
