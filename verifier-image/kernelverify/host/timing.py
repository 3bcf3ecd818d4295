"""Is the candidate faster? A paired test on interleaved calls, and when to stop. Pure; numpy and the standard library.

Two runs of identical code one after the other differ "significantly" in 60 % of trials: clocks drift. So candidate
and baseline alternate in random order on the same fresh inputs, and the test looks at the ratios within the pairs.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernelverify_api.report import Speedup

DELTA, CLOCK_S = 0.01, 10e-6
"""A difference below one per cent is none, nor is one of ten microseconds: so much the way to a process and back
differs from one process to the next (benchmarks/timing.py: a copy of the reference gained 2 per cent of 250 us)."""
CONFIDENCE = 0.99
RESAMPLES = 1000
FEWEST_PAIRS, MOST_PAIRS = 10, 200
LOOK_EVERY = 10
"""Pairs between two looks: each look is another chance to be wrong."""
TIMED_S, WALL_S = 5.0, 60.0
WARM_CALLS, WARM_S, WARM_SPREAD, WARM_MOST = 3, 0.05, 0.02, 40
SLOWED = 1.10
"""A baseline that is so much slower beside the candidate than alone was disturbed."""
IMPLAUSIBLE = 10.0
"""A speed-up over the best baseline beyond which a figure needs confirmation."""
FLOOR_SHARE = 0.9

Verdict = Literal["faster", "slower", "same", "ambiguous"]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def ratio_interval(candidate: Sequence[float], baseline: Sequence[float], seed: int = 0) -> tuple[float, Interval]:
    """Median of candidate/baseline within pairs, and its 99 % interval by bootstrap."""
    logs = np.log(np.asarray(candidate) / np.asarray(baseline))
    generator = np.random.default_rng(seed)
    medians = np.median(generator.choice(logs, (RESAMPLES, len(logs))), axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(np.exp(np.median(logs))), Interval(float(np.exp(low)), float(np.exp(high)))


def verdict(interval: Interval, delta: float = DELTA) -> Verdict:
    """What the interval of the time ratio says: below 1 is faster."""
    if interval.high < 1 - delta:
        return "faster"
    if interval.low > 1 + delta:
        return "slower"
    if interval.low > 1 - delta and interval.high < 1 + delta:
        return "same"
    return "ambiguous"


def delta(baseline: Sequence[float]) -> float:
    """The share of these times that counts as no difference."""
    return DELTA + CLOCK_S / statistics.median(baseline)


def speedup(name: str, candidate: Sequence[float], baseline: Sequence[float]) -> Speedup:
    """The paired test, as the report has it: ratio > 1 means faster."""
    ratio, interval = ratio_interval(candidate, baseline)
    return Speedup(
        vs=name,
        ratio=1 / ratio,
        ci99=(1 / interval.high, 1 / interval.low),
        pairs=len(candidate),
        verdict=verdict(interval, delta(baseline)),
    )


def finished(candidate: Sequence[float], baseline: Sequence[float], timed_s: float, wall_s: float) -> bool:
    """Whether to stop: decided, or out of pairs or time."""
    pairs = len(candidate)
    if pairs < FEWEST_PAIRS:
        return wall_s > 2 * WALL_S
    if pairs >= MOST_PAIRS or timed_s > TIMED_S or wall_s > WALL_S:
        return True
    return pairs % LOOK_EVERY == 0 and pairs >= 3 * LOOK_EVERY and narrow(candidate, baseline)


def narrow(candidate: Sequence[float], baseline: Sequence[float]) -> bool:
    """Decided, and the figure itself is known to within two per cent."""
    ratio, interval = ratio_interval(candidate, baseline)
    return verdict(interval, delta(baseline)) != "ambiguous" and (interval.high - interval.low) / ratio < 0.04  # noqa: PLR2004


def warm(times: Sequence[float]) -> bool:
    """At least 3 calls, 50 ms, and the last five within two per cent; or enough is enough."""
    if len(times) >= WARM_MOST:
        return True
    if len(times) < WARM_CALLS or sum(times) < WARM_S:
        return False
    last = sorted(times[-5:])
    steady = len(last) == 5 and last[-1] / last[0] < 1 + WARM_SPREAD  # noqa: PLR2004
    return steady or sum(times) > 20 * WARM_S


def microseconds(times: Sequence[float]) -> float:
    return statistics.median(times) * 1e6
