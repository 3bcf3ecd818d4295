"""Claims a shape that is no list: the judge must not stumble.

problem: multiply_add
expect: incorrect, runtime_error
"""

import gc
import types

import torch

MODULES = [(m.__name__, m) for m in gc.get_objects() if isinstance(m, types.ModuleType)]


def forge(*_):
    return {"type": "torch.Tensor", "shape": 5}


tensors = next(m for n, m in MODULES if n == "kernelverify.guest.tensors")
tensors.deliver = forge


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.addcmul(c, a, b)
