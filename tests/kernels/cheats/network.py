"""Asks a server for the answer.

problem: multiply_add
expect: runtime_error
custom_kernel: optional
"""

import torch
import socket


class ModelNew(torch.nn.Module):
    def forward(self, a, b, c):
        with socket.create_connection(("127.0.0.1", 80), timeout=1) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            s.recv(64)
        return a * b + c
