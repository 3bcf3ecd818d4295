"""Includes a file from outside at compile time, to print it in an error or bake it in.

problem: multiply_add
expect: compile_error
"""

import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
const char* secret =
#include "/etc/shadow"
;
torch::Tensor run(torch::Tensor a, torch::Tensor b, torch::Tensor c) { return a * b + c; }
"""

module = load_inline(name="include", cpp_sources=SOURCE, functions=["run"], extra_cflags=["-O3"])


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return module.run(a, b, c)
