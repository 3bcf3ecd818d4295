# expect: get_baselines() returned list
# expect: dict
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2


def get_inputs():
    return [torch.randn(8, 8)]


def get_init_inputs():
    return []


def get_baselines():
    return [1]
