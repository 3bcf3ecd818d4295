# expect: no tensor
# expect: at least one tensor
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2


def get_inputs():
    return [1, 2.0]


def get_init_inputs():
    return []
