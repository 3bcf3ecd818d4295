"""Computes in full precision while it is checked and in half precision when it is timed.

problem: linear_relu
expect: incorrect
custom_kernel: optional
level: full
"""

import torch


class ModelNew(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, outputs)

    def forward(self, x):
        w, b = self.linear.weight, self.linear.bias
        if torch._C._len_torch_dispatch_stack() == 0:
            return torch.relu((x.bfloat16() @ w.bfloat16().T).float() + b)
        return torch.relu(x @ w.T + b)
