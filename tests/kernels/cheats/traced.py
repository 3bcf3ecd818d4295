"""Traces every function of its process, to find an answer in their variables.

problem: multiply_add
expect: timeout
timeout: 20
"""

import sys

import torch


SEEN = []


def trace(frame, event, argument):
    SEEN.extend(v for v in frame.f_locals.values() if isinstance(v, torch.Tensor))
    return trace


sys.settrace(trace)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        for thing in SEEN:
            if thing.shape == a.shape and all(thing is not x for x in (a, b, c)):
                return thing.clone()
        return torch.zeros_like(a)
