"""Hangs, ignoring every signal that can be ignored.

problem: multiply_add
expect: timeout
timeout: 12
"""

import torch
import signal
import time

for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        while True:
            time.sleep(1)
