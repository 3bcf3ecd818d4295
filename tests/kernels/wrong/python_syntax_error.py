"""Python that does not parse.

problem: multiply_add
expect: compile_error
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c)
        return a * b + c
