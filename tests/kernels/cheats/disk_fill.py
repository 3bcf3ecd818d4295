"""Fills the disk.

problem: multiply_add
expect: runtime_error
timeout: 30
"""

import torch
import os


def fill():
    for index in range(10_000):
        with open(os.path.join(os.environ.get("TMPDIR", "."), f"fill{index}"), "wb") as f:
            for _ in range(64):
                f.write(b"x" * (16 << 20))


fill()
