"""Claims strides that are no list: the judge must not stumble.

problem: multiply_add
expect: incorrect
"""

import sys

import torch


def forge(*_):
    return {"type": "torch.Tensor", "shape": [20011], "dtype": "float32", "device": "cpu", "layout": "strided", "stride": 7}


frame = sys._getframe()
while "tensors" not in frame.f_globals:
    frame = frame.f_back
frame.f_globals["tensors"].describe = forge


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.addcmul(c, a, b)
