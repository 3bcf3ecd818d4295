"""Leaves with exit code 0 before anything can be checked.

problem: multiply_add
expect: incorrect, runtime_error, reward_hack, timeout, compile_error
"""

import torch
import os

os._exit(0)
