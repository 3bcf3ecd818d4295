"""Fills the disk in folders so deep that no path leads there, and the judge's clean-up must go there, too.

problem: multiply_add
custom_kernel: optional
expect: runtime_error
"""

import os
import time

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
        for number in range(8):
            with open(f"{number}", "wb") as file:
                file.write(b"x" * (200 << 20))
        os.chdir("/")
        time.sleep(60)
        return a * b + c
