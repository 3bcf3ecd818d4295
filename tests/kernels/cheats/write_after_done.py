"""Keeps a pointer to the place where outputs go and completes the answer after reporting done.

problem: multiply_add
expect: incorrect
"""

import torch
import threading
import time


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.zeros_like(a)
        y[: a.numel() // 4] = (a * b + c)[: a.numel() // 4]

        def work():
            for _ in range(200):
                time.sleep(0.0005)
                torch.add(a * b, c, out=y)

        threading.Thread(target=work, daemon=True).start()
        return y
