"""Inputs of timed calls: new ones for every pair, a secret share of them with other signs."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from torch.utils._pytree import tree_leaves

from kernelverify.host import inputs, reference
from kernelverify.host.session import Session
from kernelverify.resources import HostError

CHEAP_S = 0.05
"""A generator faster than this draws for every pair; a slower one fills a pool, whose draws get new signs each time."""
POOL = 8
FLIPPED_OF_TEN = 7
"""Own inputs flatter low precision: most timed calls have others, so that the median does."""


@dataclass(frozen=True)
class Fresh:
    """The inputs of one pair, and how an answer to them is judged."""

    inputs: list[Any]
    seed: int
    like: reference.Draw
    """A draw of the same gate, whose answer is known."""

    def answers(self, session: Session) -> reference.Draw:
        """What is right for just these inputs: costs a reference in fp64."""
        return reference.draw_of(session.loaded, session.model, self.like.gate, self.inputs, self.seed)


class Generator:
    """Draws for one problem. No two draws are alike, so that nothing is gained by keeping answers."""

    def __init__(self, session: Session) -> None:
        self._session = session
        own = session.draw(inputs.OWN[0])
        if own is None:  # own inputs are never dropped
            raise HostError("the problem has no draw on its own inputs")
        self.own, self._flipped = own, session.draw(inputs.FLIPPED[0])
        start = time.perf_counter()
        first = self._draw()
        cheap = time.perf_counter() - start < CHEAP_S
        # Where no sign can change, a slow generator is waited for.
        signs = self._flipped is not None and any(map(inputs.varied, tree_leaves(first)))
        self._pool = [first, *(self._draw() for _ in range(POOL - 1))] if signs and not cheap else []

    @property
    def how(self) -> str:
        """For the report."""
        if self._pool:
            return f"pool of {POOL}, signs by axis"
        return "draw per pair" if self._flipped is None else "draw per pair, most with signs by axis"

    def fresh(self) -> Fresh:
        seed = self._session.draw_seed()
        if self._flipped is None or (not self._pool and secrets.randbelow(10) >= FLIPPED_OF_TEN):
            return Fresh(self._draw(seed), seed, self.own)
        drawn = secrets.choice(self._pool) if self._pool else self._draw(seed)
        return Fresh(inputs.change(self._flipped.gate, drawn, seed), seed, self._flipped)

    def _draw(self, seed: int | None = None) -> list[Any]:
        return self._session.loaded.get_inputs(self._session.draw_seed() if seed is None else seed)
