"""Interleaved pairs against sequential blocks on this machine: false verdicts on identical code, power at 3 per cent.

Prints ratios from one run; `--json` adds one last line of JSON.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable

import numpy as np

from kernelverify.host import timing

Timed = Callable[[], float]


def work(size: int) -> Timed:
    data = np.random.default_rng(0).standard_normal(size)

    def once() -> float:
        start = time.perf_counter()
        np.sort(data).sum()
        return time.perf_counter() - start

    return once


def sequential(mine: Timed, other: Timed, count: int) -> str:
    """All of one, then all of the other, with a test that knows no pairs."""
    a, b = np.log([mine() for _ in range(count)]), np.log([other() for _ in range(count)])
    draw = np.random.default_rng(0)
    picked = [np.median(draw.choice(x, (timing.RESAMPLES, count)), axis=1) for x in (a, b)]
    low, high = np.exp(np.quantile(picked[0] - picked[1], [0.005, 0.995]))
    return timing.verdict(timing.Interval(float(low), float(high)))


def interleaved(mine: Timed, other: Timed, count: int) -> str:
    """Pairs in random order, tested as pairs."""
    a, b = [], []
    for _ in range(count):
        if random.random() < 0.5:
            a.append(mine())
            b.append(other())
        else:
            b.append(other())
            a.append(mine())
    return timing.speedup("baseline", a, b).verdict


def rate(design: Callable[..., str], mine: Timed, other: Timed, trials: int, pairs: int, hits: set[str]) -> float:
    return sum(design(mine, other, pairs) in hits for _ in range(trials)) / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    base, faster = work(20_000), work(19_400)
    decided = {"faster", "slower"}
    figures = {
        "false_sequential": rate(sequential, base, base, asked.trials, asked.pairs, decided),
        "false_interleaved": rate(interleaved, base, base, asked.trials, asked.pairs, decided),
        "power_3_percent_interleaved": rate(interleaved, faster, base, asked.trials, asked.pairs, {"faster"}),
        "trials": asked.trials,
        "pairs": asked.pairs,
        "load": os.getloadavg()[0],
    }
    for name, value in figures.items():
        print(f"{name:28} {value:.3g}")
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
