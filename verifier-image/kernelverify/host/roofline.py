"""The least time that moving the bytes allows, from a bandwidth measured here and now on as many bytes.

Measured at the problem's own size: small inputs live in caches, and main memory's figure would call an honest kernel
impossible. Arithmetic is not counted on a CPU lane: references do not say how much of it a problem needs.
"""

import time
from functools import lru_cache

import torch

REPEATS = 7
LEAST_BYTES = 1 << 16


def floor_us(nbytes: int) -> float:
    """Microseconds to read and write so many bytes in all, at the best speed seen."""
    size = max(LEAST_BYTES, 1 << (nbytes - 1).bit_length())
    return nbytes / bandwidth(size) * 1e6


@lru_cache(maxsize=64)
def bandwidth(size: int) -> float:
    """Bytes per second, read and written, of the best of several copies of `size` bytes in all."""
    source = torch.ones(size // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return size / best
