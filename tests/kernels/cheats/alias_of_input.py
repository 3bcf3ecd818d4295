"""Returns a view of an input where the output should be new.

problem: multiply_add
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return c.view_as(c)
