"""A helper leaves the process group, so that it may go on while the candidate is stopped.

problem: multiply_add
expect: runtime_error
level: full
"""

import os

import torch


if os.fork() == 0:
    os.setsid()
    os.setpgid(0, 0)
    while True:
        pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.addcmul(c, a, b)
