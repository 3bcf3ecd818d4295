"""A tensor and a number: what is no tensor has to be timed, too."""

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x[:4] * 2, int((x.sort(dim=-1).values[:, 0] > 0.0005).sum())


def get_inputs():
    return [torch.rand(256, 4096)]


def get_init_inputs():
    return []
