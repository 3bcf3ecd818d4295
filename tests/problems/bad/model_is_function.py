# expect: Model is
# expect: torch.nn.Module
import torch


def Model():
    return None


def get_inputs():
    return [torch.randn(8, 8)]


def get_init_inputs():
    return []
