# expect: forward
# expect: RuntimeError
# expect: x @ x[:3]
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x @ x[:3]


def get_inputs():
    return [torch.randn(8, 8)]


def get_init_inputs():
    return []
