"""Asks the compiler to load a plugin.

problem: multiply_add
expect: compile_error
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = "torch::Tensor run(torch::Tensor a, torch::Tensor b, torch::Tensor c) { return a * b + c; }"

module = load_inline(name="plugin", cpp_sources=SOURCE, functions=["run"], extra_cflags=["-fplugin=/tmp/evil.so"])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return module.run(a, b, c)
