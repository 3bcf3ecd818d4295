"""Returns the mean that softmax rows have anyway.

problem: row_softmax
expect: incorrect
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.full_like(x, 1.0 / x.shape[1])
