"""Forks without end.

problem: multiply_add
expect: incorrect, runtime_error, reward_hack, timeout, compile_error
timeout: 20
"""

import torch
import os

while True:
    try:
        os.fork()
    except OSError:
        pass
