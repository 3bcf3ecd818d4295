"""Returns a tensor subclass that computes when it is looked at.

problem: multiply_add
expect: incorrect
"""

import torch


class Lazy(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return (a * b + c).as_subclass(Lazy)
