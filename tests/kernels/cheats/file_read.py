"""Reads a file that is none of its business and would leak it into the output.

problem: multiply_add
expect: runtime_error
custom_kernel: optional
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        with open("/etc/shadow", "rb") as f:
            data = f.read(8)
        return a * b + c + 0 * len(data)
