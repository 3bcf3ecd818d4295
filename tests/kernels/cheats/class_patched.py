"""Returns an object that claims to be a tensor, and one whose class was changed afterwards.

problem: multiply_add
expect: incorrect
"""

import torch


class Late(torch.Tensor):
    pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.zeros_like(a).as_subclass(Late)
        try:
            y.__class__ = torch.Tensor
        except TypeError:
            pass
        return y
