"""The least time that moving the bytes allows, from a bandwidth measured here and now on as many bytes.

Measured at the problem's own size: small inputs live in caches, and main memory's figure would call an honest kernel
impossible. Arithmetic is not counted on a CPU lane: references do not say how much of it a problem needs.
"""

import time

import torch

REPEATS = 7
LEAST_BYTES = 1 << 16
DOUBTS = 5
"""Measurements anew before a time is called impossible: the first one may have met a busy moment."""
PAUSE_S = 0.1

_best: dict[int, float] = {}
"""Bytes per second by size, the best ever seen here."""


def floor_us(nbytes: int, claimed_us: float = float("inf")) -> float:
    """Microseconds to read and write so many bytes in all, at the best speed seen.

    A claim below it is a reason to measure again: only what no measurement reaches is impossible.
    """
    size = max(LEAST_BYTES, 1 << (nbytes - 1).bit_length())
    if size not in _best:
        _best[size] = _bandwidth(size)
    for _ in range(DOUBTS):
        if claimed_us >= nbytes / _best[size] * 1e6:
            break
        time.sleep(PAUSE_S)
        _best[size] = max(_best[size], _bandwidth(size))
    return nbytes / _best[size] * 1e6


def _bandwidth(size: int) -> float:
    """Bytes per second, read and written, of the best of several copies of `size` bytes in all."""
    source = torch.ones(size // 2, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return size / best
