"""Answers with numbers that no float holds, so that the judge would stumble over passing them on.

problem: multiply_add
expect: runtime_error
"""

import torch


import sys

FRAMES = sys._getframe()
while FRAMES is not None and "self" not in FRAMES.f_locals:
    FRAMES = FRAMES.f_back
JUDGE = FRAMES.f_locals["self"]


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        import json

        nonce = json.dumps(JUDGE._nonce)
        body = ('{"event": "build", "nonce": ' + nonce + ', "build": {"key": 1e999, "name": 1e999}}').encode()
        JUDGE._channel._sock.sendall(len(body).to_bytes(4, "big") + body)
        return torch.addcmul(c, a, b)
