"""Leaves with exit code 0 before anything can be checked.

problem: multiply_add
expect: runtime_error
"""

import torch
import os

os._exit(0)
