"""How far a right answer may be from the reference: a tolerance that follows the problem's own sensitivity.

A fixed tolerance is wrong both ways: honest fp32 sums fail it on long reductions, bf16 passes it on flattering inputs.
So the limit for each output is derived from how much the *reference* changes when its inputs and weights change in
their last trusted bits (σ), from eager's own error, and from the rounding of the output itself. The constants were
swept over KernelBench's levels 1 and 2; `benchmarks/tolerance.py` repeats the sweep on the corpus.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Constants:
    """One dtype's constants."""

    kappa: float
    """Times eager's own error."""
    norm: float
    """f: share of the sensitivity, normwise."""
    element: float
    """g: share of the largest sensitivity, elementwise."""
    perturbation: float
    """ε of the relative perturbation that σ answers to."""
    unit: float
    """u: unit roundoff."""


FP32 = Constants(kappa=32, norm=1 / 16, element=1 / 4, perturbation=2**-11, unit=2**-24)
FP16 = Constants(kappa=4, norm=1 / 4, element=1.0, perturbation=2**-8, unit=2**-11)
BF16 = Constants(kappa=4, norm=1 / 4, element=1.0, perturbation=2**-4, unit=2**-8)
TF32 = Constants(kappa=32, norm=1 / 16, element=1 / 4, perturbation=2**-8, unit=2**-24)
"""fp32 where the problem allows TF32 products."""

OWN_INPUTS = 3e-5
"""Relative error always allowed in fp32 on the problem's own inputs: precision is judged on the flipped sets."""
FALLBACK = 1e-5
"""Share of ‖r‖ that stands for κ‖b − r‖ where the reference could not be computed in fp64."""
LEAST_CHUNK, MOST_CHUNKS = 64, 8
TINY = 2.0**-126


def constants(dtype: torch.dtype, *, allow_tf32: bool = False) -> Constants:
    """The constants for the lowest float dtype among a problem's inputs, weights and outputs."""
    if dtype is torch.bfloat16:
        return BF16
    if dtype is torch.float16:
        return FP16
    return TF32 if allow_tf32 else FP32


@dataclass(frozen=True)
class Share:
    """One output's error against its limits; `share` > 1 is a rejection."""

    share: float
    normwise: float
    normwise_allowed: float
    max_abs: float
    max_abs_allowed: float


@dataclass(frozen=True)
class Rule:
    """How one gate is judged."""

    constants: Constants
    own_inputs: bool = False
    fp64: bool = True
    extra: float = 0.0
    """Further relative error allowed, of ‖r‖: for timed calls, which are compared with the baseline's output."""


def judge(candidate: Tensor, eager: Tensor, reference: Tensor, sigma: Tensor, rule: Rule) -> Share:
    """The largest share over the whole output and its chunks. All tensors fp64, finite, of one shape."""
    shares = [_share(c, b, r, s, rule) for c, b, r, s in _parts(candidate, eager, reference, sigma)]
    worst = max(shares, key=lambda s: s.share)
    return Share(worst.share, shares[0].normwise, shares[0].normwise_allowed, shares[0].max_abs, worst.max_abs_allowed)


def element_limit(eager: Tensor, reference: Tensor, sigma: Tensor, rule: Rule) -> float:
    """The elementwise limit over the whole output, to name the elements that are off."""
    return _limits(eager.reshape(-1), reference.reshape(-1), sigma.reshape(-1), rule)[1]


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The whole output, then its chunks, flat."""
    flat = [t.reshape(-1) for t in tensors]
    yield tuple(flat)
    count = min(MOST_CHUNKS, flat[0].numel() // LEAST_CHUNK)
    if count > 1:
        yield from zip(*(t.chunk(count) for t in flat), strict=True)


def _share(candidate: Tensor, eager: Tensor, reference: Tensor, sigma: Tensor, rule: Rule) -> Share:
    if not candidate.numel():
        return Share(0.0, 0.0, 0.0, 0.0, 0.0)
    norm_limit, element_limit_ = _limits(eager, reference, sigma, rule)
    error = candidate - reference
    norm, largest = error.norm().item(), error.abs().max().item()
    size = max(reference.norm().item(), TINY)
    share = max(norm / norm_limit, largest / element_limit_)
    return Share(share, norm / size, norm_limit / size, largest, element_limit_)


def _limits(eager: Tensor, reference: Tensor, sigma: Tensor, rule: Rule) -> tuple[float, float]:
    """Allowed error: normwise, and of the largest element."""
    c = rule.constants
    gap, size = eager - reference, reference.norm().item()
    rms = size / math.sqrt(max(reference.numel(), 1))
    spread = sigma.norm().item()
    # a bad or TF32 baseline must not widen the gate
    kappa = c.kappa if gap.norm().item() <= spread / 4 else 0.0
    own = OWN_INPUTS if rule.own_inputs and c.unit == FP32.unit else 0.0
    flat = max(own, rule.extra, 0.0 if rule.fp64 else FALLBACK)
    top = max(rms, reference.abs().max().item() / 4)
    norm_limit = max(
        kappa * gap.norm().item() if rule.fp64 else 0.0,
        c.norm * spread,
        max(flat, 16 * c.unit) * size,
        TINY * math.sqrt(reference.numel()),
    )
    element_limit_ = max(
        kappa * gap.abs().max().item() if rule.fp64 else 0.0,
        c.element * sigma.max().item(),
        8 * flat * rms,
        64 * c.unit * top,
        TINY,
    )
    return norm_limit, element_limit_
