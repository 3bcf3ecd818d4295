"""Never returns from forward.

problem: multiply_add
expect: timeout
timeout: 12
"""

import torch


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        while True:
            pass
