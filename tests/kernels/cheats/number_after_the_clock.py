"""Answers a number of nought in time and computes the real one when it is asked to describe what it answered.

problem: rows_counted
custom_kernel: optional
expect: incorrect
"""

import sys

import torch

KEPT = {}


def late(message, descriptors):
    answer = KEPT["tell"](message, descriptors)
    counted = int((KEPT["x"].sort(dim=-1).values[:, 0] > 0.0005).sum())
    return {**answer, "skeleton": {"tuple": [{"tensor": 0}, counted]}}


class ModelNew(torch.nn.Module):
    def forward(self, x):
        if "tell" not in KEPT:
            frame = sys._getframe()
            while "handlers" not in frame.f_locals:
                frame = frame.f_back
            handlers = frame.f_locals["handlers"]
            KEPT["tell"], handlers["tell"] = handlers["tell"], late
        KEPT["x"] = x
        return x[:4] * 2, 0
