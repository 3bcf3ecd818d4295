"""One problem as the referee keeps it between evaluations: the reference, secret weights, a secret pool of draws."""

import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kernelverify.host import inputs, problem, reference
from kernelverify_api import request
from kernelverify_api.report import DroppedGate

POOL = {"own": 8, "flipped": 4, "flipped_small": 4}
"""Draws kept by kind: sixteen, each used until samples of it were shown to a model."""
SEED_BITS = 48


class Session:
    """A loaded problem with a model under a secret seed. Raises ProblemError when the problem is unusable."""

    def __init__(self, asked: request.Problem, seed: int | None = None) -> None:
        self.asked = asked
        self.loaded = problem.load(asked)
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.model_seed = self.draw_seed()
        self.model: nn.Module = self.loaded.make_model(self.model_seed)
        self.dropped: dict[str, DroppedGate] = {}
        self._pool: dict[str, list[reference.Draw]] = defaultdict(list)

    def draw_seed(self) -> int:
        """Secret, unless the caller asked for repeatable draws."""
        if self._generator is None:
            return secrets.randbits(SEED_BITS)
        return int(torch.randint(0, 1 << SEED_BITS, (1,), generator=self._generator))

    def draws(self, gates: Sequence[str]) -> list[tuple[str, reference.Draw]]:
        """One for each gate that the reference can pass, no two the same.

        A second call on the same inputs may meet the first one's answer in memory that was freed, and with its kernels
        disabled an honest candidate would be right.
        """
        found: list[tuple[str, reference.Draw]] = []
        for gate in gates:
            made = self.draw(gate, but=[draw for _, draw in found])
            if made is not None:
                found.append((gate, made))
        return found

    def draw(self, gate: str, *, but: Sequence[reference.Draw] = ()) -> reference.Draw | None:
        """A draw for a gate, none of `but`: of the pool once that is full; None when the reference cannot pass it."""
        if gate in self.dropped:
            return None
        kind = "own" if gate in inputs.OWN else gate
        kept = self._pool[kind]
        left = [draw for draw in kept if all(draw is not other for other in but)]
        if left and len(kept) >= POOL.get(kind, 0):
            return left[secrets.randbelow(len(left))]
        made = reference.make_draw(self.loaded, self.model, gate, self.draw_seed())
        if isinstance(made, DroppedGate):
            self.dropped[gate] = made
            return None
        if len(kept) < POOL.get(kind, 0):
            kept.append(made)
        return made

    def retire(self, draw: reference.Draw) -> None:
        """Samples of its answer were shown: never use it again."""
        for kept in self._pool.values():
            kept[:] = [d for d in kept if d is not draw]

    def weights_for(self, state: tuple[tuple[str, tuple[int, ...], str], ...]) -> dict[str, Tensor] | None:
        """The reference's state_dict when the candidate's has its names and shapes; else both keep their seed's."""
        own = {k: v for k, v in self.model.state_dict().items() if isinstance(v, Tensor)}
        if not own or {name: shape for name, shape, _ in state} != {k: tuple(v.shape) for k, v in own.items()}:
            return None
        return own

    def bytes_moved(self, draw: reference.Draw) -> int:
        """Inputs, weights and outputs, each once."""
        leaves: list[Any] = [*torch.utils._pytree.tree_leaves(draw.inputs), *draw.eager, *self.model.parameters()]  # noqa: SLF001
        return sum(t.numel() * t.element_size() for t in leaves if isinstance(t, Tensor))
