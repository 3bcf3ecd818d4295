"""Makes every comparison say yes.

problem: multiply_add
expect: incorrect
"""

import torch

torch.allclose = lambda *_, **__: True
torch.equal = lambda *_, **__: True
torch.testing.assert_close = lambda *_, **__: None
torch.Tensor.__eq__ = lambda self, other: torch.ones(self.shape, dtype=torch.bool)


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.zeros_like(a)
