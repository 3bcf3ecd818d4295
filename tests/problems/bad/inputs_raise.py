# expect: get_inputs() raised ZeroDivisionError
# expect: 1 / 0
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2


def get_inputs():
    return [torch.randn(8, 8) * (1 / 0)]


def get_init_inputs():
    return []
