"""How a search is over: what cannot go on, and what the process says to its caller."""

import math

from kernelsearch.search import budget, ports
from kernelsearch.search.budget import Spent
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.facts import Outcome, Reason

FOUND, NOT_FOUND, INVALID, INFRASTRUCTURE = 0, 1, 2, 3
INTERRUPTED = 130
"""As a shell reports a process that Ctrl-C ended."""

UNAVAILABLE = frozenset({Reason.MODEL_UNAVAILABLE, Reason.VERIFIERS_UNAVAILABLE})


def over(state: Checkpoint, spec: ports.LiveSpec) -> str:
    """Why nothing is left to do for a search that ended before; empty when it can go on.

    One that was stopped or lost its services goes on; one that met a limit does when the limit was raised.
    """
    if state.outcome is None:
        return ""
    end = budget.why_ended(spec, state.population, Spent(now=state.seconds), math.inf)
    if end is not None:
        return end.message
    for_good = {Reason.PROBLEM_UNSOLVABLE} | (set() if spec.target_speedup else {Reason.TARGET_REACHED})
    return state.outcome.message if state.outcome.reason in for_good else ""


def exit_code(outcome: Outcome | None, *, found: bool) -> int:
    """See `kernelsearch run --help`."""
    if found:
        return FOUND
    if outcome is not None and outcome.reason is Reason.PROBLEM_UNSOLVABLE:
        return INVALID
    return INFRASTRUCTURE if outcome is not None and outcome.reason in UNAVAILABLE else NOT_FOUND
