"""Root-mean-square normalisation with a learned weight."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def get_inputs():
    return [torch.randn(40, 257)]


def get_init_inputs():
    return [257, 1e-6]
