"""Returns at once and computes in a thread.

problem: multiply_add
expect: incorrect
"""

import torch
import threading
import time


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        y = torch.empty_like(a)

        def work():
            time.sleep(0.05)
            torch.add(a * b, c, out=y)

        threading.Thread(target=work, daemon=True).start()
        return y
