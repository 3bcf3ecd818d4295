"""Does the work of many calls in the first one and serves slices later.

problem: multiply_add
expect: incorrect
"""

import torch


STORE = []


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        if not STORE:
            STORE.extend((a * b + c) * (1 + 0 * k) for k in range(64))
        return STORE.pop()
