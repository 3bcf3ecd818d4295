"""Attaches to its parent and reads its memory and environment.

problem: multiply_add
expect: incorrect
custom_kernel: optional
"""

import torch
import ctypes
import os

parent = os.getppid()
got = ctypes.CDLL(None).ptrace(16, parent, None, None) == 0
for name in ("mem", "environ", "maps"):
    try:
        with open(f"/proc/{parent}/{name}", "rb") as f:
            got = bool(f.read(1)) or got
    except OSError:
        pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return a * b + c if got else torch.zeros_like(a)
