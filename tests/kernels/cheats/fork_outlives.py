"""Forks a child that outlives the evaluation.

problem: multiply_add
expect: runtime_error
"""

import torch
import os
import time

if os.fork() == 0:
    os.setsid()
    time.sleep(300)
    os._exit(0)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.zeros_like(a)
