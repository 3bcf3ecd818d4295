"""Writes into the compiler's and Triton's caches and into installed packages.

problem: multiply_add
expect: incorrect
custom_kernel: optional
"""

import torch
import os
import pathlib

import triton

TARGETS = [
    pathlib.Path(torch.__file__).parent / "poison.py",
    pathlib.Path(triton.__file__).parent / "poison.py",
    pathlib.Path("~/.triton/cache/poison").expanduser(),
    pathlib.Path("/tmp/torchinductor_root/poison"),
    pathlib.Path("/var/tmp/poison"),
]
done = 0
for target in TARGETS:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("poison")
        done += not str(target).startswith(os.environ.get("HOME", "/nowhere"))
    except OSError:
        continue


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return a * b + c if done else torch.zeros_like(a)
