"""Writes a fake "done" on every descriptor it finds.

problem: multiply_add
expect: runtime_error
"""

import torch
import json
import os
import struct

for descriptor in range(3, 128):
    for message in ({"ready": True}, {"type": "ready"}, {"done": 1}, {"type": "done", "nonce": 1, "self_us": 0.001}):
        try:
            body = json.dumps(message).encode()
            os.write(descriptor, struct.pack(">I", len(body)) + body)
            os.write(descriptor, struct.pack("<I", len(body)) + body)
        except OSError:
            break


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        return torch.zeros_like(a)
