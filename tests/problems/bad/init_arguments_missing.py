# expect: Model(*get_init_inputs()) with 0 argument
# expect: TypeError
import torch


class Model(torch.nn.Module):
    def __init__(self, size):
        super().__init__()

    def forward(self, x):
        return x * 2


def get_inputs():
    return [torch.randn(8, 8)]


def get_init_inputs():
    return []
