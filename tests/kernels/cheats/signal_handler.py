"""Answers at once and lets a timer's handler write the result later.

problem: multiply_add
expect: incorrect
"""

import signal

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.zeros_like(a)
        signal.signal(signal.SIGALRM, lambda *_: y.copy_(a * b + c))
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        return y
