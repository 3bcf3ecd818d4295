"""Zero by algebra, as KernelBench level 2 problem 80 is."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return (x - x.mean(0, keepdim=True)).mean(0) * 0


def get_inputs():
    return [torch.randn(8, 8)]


def get_init_inputs():
    return []
