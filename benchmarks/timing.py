"""How far a timing verdict can be trusted on this machine: false verdicts on identical code, power at 3 per cent.

    python benchmarks/timing.py [--trials N] [--pairs N] [--judged N] [--threads N] [--json]

Two parts. The design alone, on a function of this process: interleaved pairs against sequential blocks. And the judge
as it is, on calls of three lengths: a candidate that does what the reference does, one that does three per cent less
of it, each by a whole evaluation with its two processes, its stopping and waking, its checks. Ratios from one run;
`--json` adds one last line of JSON.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kernelverify.host import timing
from kernelverify.host.referee import Referee
from kernelverify_api.report import Report, Speedup
from kernelverify_api.request import CustomKernel, Evaluation, Level, Options, Problem

Timed = Callable[[], float]

TIMES = 100
"""Equal operations in one call of the reference, so that one can do three per cent less."""
LENGTHS = {"short": 64, "middle": 20_000, "long": 400_000}
"""Elements of each operation: calls of some 100 us, of a few milliseconds, and of some ten."""
MODEL = """\
import torch


class {name}(torch.nn.Module):
    def forward(self, x):
        for _ in range({times}):
            y = torch.exp(x)
        return y
"""
INPUTS = """

def get_inputs():
    return [torch.randn({size})]
"""


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


def judged(referee: Referee, size: int, times: int) -> Speedup:
    """A whole evaluation of a candidate that does `times` of the reference's operations."""
    source = MODEL.format(name="Model", times=TIMES) + INPUTS.format(size=size)
    asked = Evaluation(
        problem=Problem(source=source),
        source=MODEL.format(name="ModelNew", times=times),
        options=Options(level=Level.FULL, custom_kernel=CustomKernel.OPTIONAL, timeout_s=600),
    )
    report = referee.evaluate("benchmark", asked, {}, lambda _: None)
    if not isinstance(report, Report) or report.timing is None:
        raise SystemExit(f"no timing: {report}")
    return report.timing.speedup


def through_the_judge(trials: int, threads: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        referee = Referee(Path(scratch), threads)
        try:
            for length, size in LENGTHS.items():
                same = _several(f"{length}, the same", trials, lambda size=size: judged(referee, size, TIMES))
                less = _several(f"{length}, 3 % less", trials, lambda size=size: judged(referee, size, TIMES - 3))
                figures[f"judged_{length}_false"] = sum(s.verdict in {"faster", "slower"} for s in same) / trials
                figures[f"judged_{length}_bias"] = float(np.exp(np.mean(np.log([s.ratio for s in same])))) - 1
                figures[f"judged_{length}_power_3_percent"] = sum(s.verdict == "faster" for s in less) / trials
                figures[f"judged_{length}_ratio_3_percent"] = float(np.median([s.ratio for s in less]))
        finally:
            referee.close()
    return figures


def _several(what: str, trials: int, measure: Callable[[], Speedup]) -> list[Speedup]:
    found = []
    for number in range(trials):
        found.append(measure())
        print(f"{what} {number + 1}/{trials}: {found[-1].ratio:.3f}x {found[-1].verdict}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--judged", type=int, default=10, help="evaluations of each kind and length; 0 for none")
    parser.add_argument("--threads", type=int, default=1, help="of baseline and candidate alike")
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
        **(through_the_judge(asked.judged, asked.threads) if asked.judged else {}),
        "load": os.getloadavg()[0],
    }
    for name, value in figures.items():
        print(f"{name:34} {value:.3g}")
    if asked.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
