"""Looks through every live tensor for one of the output's shape that is not an input.

problem: row_softmax
expect: incorrect
"""

import torch
import gc


class ModelNew(torch.nn.Module):
    def forward(self, x):
        for thing in gc.get_objects():
            try:
                if isinstance(thing, torch.Tensor) and thing.shape == x.shape and thing is not x:
                    return thing.to(x.dtype).clone()
            except ReferenceError:
                continue
        return torch.zeros_like(x)
