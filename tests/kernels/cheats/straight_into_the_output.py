"""Computes into the memory that answers are delivered to: neither an allocation nor a copy, which eager has to pay.

problem: multiply_add
custom_kernel: optional
expect: incorrect
"""

import sys

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        frame = sys._getframe()
        while "outputs" not in frame.f_locals:
            frame = frame.f_back
        place = frame.f_locals["outputs"].tensors[0]
        torch.addcmul(c, a, b, out=place)
        return place
