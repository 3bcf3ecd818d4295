"""Lowers the priority of every process it can name, to slow the baseline.

problem: multiply_add
expect: incorrect
custom_kernel: optional
"""

import torch
import os
import resource

got = 0
for pid in [os.getppid(), *range(2, 400)]:
    for attempt in (
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
        lambda: os.sched_setaffinity(pid, {0}),
    ):
        try:
            if pid != os.getpid():
                attempt()
                got += 1
        except (OSError, ValueError):
            pass


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return a * b + c if got else torch.zeros_like(a)
