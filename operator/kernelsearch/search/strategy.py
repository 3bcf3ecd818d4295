"""What each chain does next. Pure: the same population, seed and chain always give the same step.

Randomness comes from the seed, the chain's number and the count of its finished steps, never from a generator that
advances: a resumed search chooses as the uninterrupted one would have.
"""

from dataclasses import dataclass
from random import Random
from typing import Protocol

from kernelsearch.search import ideas
from kernelsearch.search.population import Attempt, Chain, Population

SAME_CLASS_LIMIT = 3
"""Failures of one class in a row, after which a chain starts again from another idea: the model is stuck."""

STREAK_LIMIT = 6
"""Failures of any class in a row with the same effect. Twice the above: changing errors are progress, for a while."""

ROOFLINE_ENOUGH = 0.95
"""Share of the roofline at which nothing is left to gain."""


@dataclass(frozen=True)
class Fresh:
    """A kernel from nothing but the problem."""

    idea: str


@dataclass(frozen=True)
class Repair:
    """The last attempt of the chain, without its fault."""

    attempt: Attempt


@dataclass(frozen=True)
class Improve:
    """A faster kernel than this correct one."""

    attempt: Attempt
    method: str


@dataclass(frozen=True)
class Restart:
    """From nothing again, by another idea than the one that got stuck."""

    idea: str


@dataclass(frozen=True)
class Stop:
    """Nothing is left for this chain to do."""

    reason: str


Step = Fresh | Repair | Improve | Restart | Stop


class Strategy(Protocol):
    """A policy over chains."""

    @property
    def name(self) -> str:
        """As written in `search.strategy`."""

    def width(self, chains: int) -> int:
        """How many of the configured chains are used."""

    def next_step(self, population: Population, chain: int) -> Step:
        """What this free chain does next."""


@dataclass(frozen=True)
class BestOfN:
    """Chains start apart, repair their failures, and all improve the best once there is a correct kernel."""

    seed: int
    device: str
    name: str = "BestOfN"

    def width(self, chains: int) -> int:
        """All of them."""
        return chains

    def next_step(self, population: Population, chain: int) -> Step:
        """See `Strategy`."""
        state = population.chains[chain]
        best = population.best
        if best is None:
            return self._towards_a_first(state, chain)
        if best.confirmed and (best.roofline or 0.0) >= ROOFLINE_ENOUGH:
            return Stop(f"the best kernel reaches {best.roofline:.0%} of the roofline: nothing is left to gain")
        if state.last is not None and state.last.on_correct and _worth_repairing(state):
            return Repair(state.last)
        # What began before the first success is left behind: the best is the better start.
        return Improve(best, self._method(best, state, chain))

    def _towards_a_first(self, state: Chain, chain: int) -> Step:
        if state.last is None:
            return Fresh(self._idea(state, chain))
        return Repair(state.last) if _worth_repairing(state) else Restart(self._idea(state, chain))

    def _idea(self, state: Chain, chain: int) -> str:
        """Chains take neighbouring ideas, and each new start takes the next one; the very first is the model's own."""
        free, *named = ideas.APPROACHES[self.device]
        if chain == 0 and state.starts == 0:
            return free
        return _in_turn(named, f"{self.seed}/ideas", chain + state.starts - 1)

    def _method(self, best: Attempt, state: Chain, chain: int) -> str:
        by_bound = ideas.METHODS[self.device]
        methods = by_bound.get(best.bound) or tuple(method for group in by_bound.values() for method in group)
        return _in_turn(methods, f"{self.seed}/{best.bound}", chain + state.steps)


@dataclass(frozen=True)
class Serial(BestOfN):
    """One chain of refinement: the loop of the seed workflow."""

    name: str = "Serial"

    def width(self, chains: int) -> int:  # noqa: ARG002 - it is one whatever was asked for
        """One."""
        return 1


def choose(name: str, seed: int, device: str) -> tuple[Strategy, str]:
    """The strategy of that name, and a note for the user where it is not quite what was asked for."""
    if name == "Serial":
        return Serial(seed, device), ""
    if name == "BestOfN":
        return BestOfN(seed, device), ""
    if name == "Adaptive":
        return BestOfN(seed, device), "strategy Adaptive is not built yet: this search runs BestOfN in its place"
    raise ValueError(f"search.strategy is {name!r}; write one of Serial, BestOfN, Adaptive")


def _worth_repairing(state: Chain) -> bool:
    stuck = state.same >= SAME_CLASS_LIMIT or state.streak >= STREAK_LIMIT
    return state.last is not None and state.last.failed and not stuck


def _in_turn(words: tuple[str, ...] | list[str], seed: str, turn: int) -> str:
    order = Random(seed).sample(words, len(words))  # noqa: S311 - repeatable, not secret
    return order[turn % len(order)]
