"""Elementwise a * b + c over one long vector of odd length."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, a, b, c):
        return a * b + c


def get_inputs():
    return [torch.randn(20011) for _ in range(3)]


def get_init_inputs():
    return []
