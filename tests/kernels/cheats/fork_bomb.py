"""Forks without end.

problem: multiply_add
expect: runtime_error, timeout
because: 256 spinning processes may keep the referee from looking at them until the time is up
timeout: 20
"""

import torch
import os

while True:
    try:
        os.fork()
    except OSError:
        pass
