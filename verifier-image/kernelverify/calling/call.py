"""One call on shared memory, the same for a candidate and for a baseline.

What the referee's clock sees must differ in nothing but the function: a candidate whose answers took 90 us more to
write down was judged 30 per cent slower than itself (benchmarks/timing.py). So both processes come through here, and
nothing is described before the clock has stopped.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kernelverify.calling import tensors


@dataclass(frozen=True)
class Performed:
    """What came of a call."""

    skeleton: Any
    leaves: list[object]
    """What was returned, tensors or not, in the skeleton's order."""
    delivered: bool
    """Whether all of it lies in the shared outputs now."""
    seconds: float
    """The function's own time, by this process's clock."""


def perform(
    function: Callable[..., Any],
    inputs: tensors.Mapped,
    outputs: tensors.Mapped,
    clock: Callable[[], float] = time.perf_counter,
) -> Performed:
    """Call the function on the inputs and copy what it returns into the outputs. Raises what it raises."""
    arguments = inputs.tree()
    with torch.no_grad():
        start = clock()
        result = function(*arguments)
        seconds = clock() - start
        skeleton, leaves = tensors.flatten(result)
        fits = [tensors.deliver(leaf, place) for leaf, place in zip(leaves, outputs.tensors, strict=False)]
    delivered = all(fits) and len(leaves) == len(outputs.tensors)
    return Performed(skeleton, leaves, delivered, seconds)
