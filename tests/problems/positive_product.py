"""A product of matrices with positive entries, as most of KernelBench draws them: low precision looks good on these."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, a, b):
        return a @ b


def get_inputs():
    return [torch.rand(64, 1024), torch.rand(1024, 64)]


def get_init_inputs():
    return []
