"""Runs a candidate through the gates, and through them again with its kernels disabled."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kernelverify.host import candidate, correctness, inputs, memory
from kernelverify.host.candidate import BuildWanted, Crash, Job, Loaded, Ran
from kernelverify.host.memory import Region
from kernelverify.host.reference import Draw
from kernelverify.host.session import Session
from kernelverify.host.zygote import Zygote
from kernelverify_api import report as api

CALL_S = 60.0
"""Longest single call. Interpreted Triton is a thousand times slower than what it stands for."""
DISABLED_S, SLOWER = 5.0, 5.0
"""The longest call with kernels disabled: so long, and so many times the longest that was right. A loop that waits for
what a kernel returns never ends then, honest as it is."""
LOAD_S = 60.0
REPEATS = 3
"""Runs on equal inputs, for determinism."""
MODES = ("zeros", "ones", "raise", "part")
"""Ways of disabling kernels (guest/ablation.py)."""
FILLS: Mapping[str, int] = {"zeros": 0, "ones": 1}
"""What is left of an answer under a mode."""


class OutOfTimeError(Exception):
    """The whole evaluation's time is used up."""


@dataclass(frozen=True)
class Deadline:
    """The evaluation's own clock."""

    at: float

    def left(self, most: float) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        return min(left, most)


@dataclass
class Checked:
    """What the gates found."""

    sets: list[api.SetResult] = field(default_factory=list)
    crash: Crash | None = None
    deterministic: bool | None = None
    kernels: tuple[str, ...] = ()
    torch_ops: Mapping[str, int] = field(default_factory=dict)
    largest_launch: int = 0
    slowest_s: float = 0.0
    """Its longest call."""
    allclose: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.crash is None and all(s.ok for s in self.sets)


def load(process: candidate.Candidate, session: Session, deadline: Deadline) -> Crash | BuildWanted | None:
    """Import, construct, and give it the reference's weights."""
    seed = session.model_seed
    dtype = candidate.dtype_name(session.loaded.dtype)
    loaded = process.load(session.loaded.init_args(seed), seed, dtype, deadline.left(LOAD_S))
    if not isinstance(loaded, Loaded):
        return loaded  # type: ignore[no-any-return]
    weights = session.weights_for(loaded.state)
    return process.load_state(weights, deadline.left(LOAD_S)) if weights else None


def check(
    process: candidate.Candidate, session: Session, deadline: Deadline, gates: tuple[str, ...] = inputs.GATES
) -> Checked | BuildWanted:
    """Every gate, until one fails. All inputs come through the same memory: who goes by addresses answers wrongly."""
    found = Checked()
    draws = session.draws(gates)
    if not draws:
        return found
    first = draws[0][1]
    with Region.inputs(first.inputs) as given, Region.outputs(first.eager) as outputs:
        stopped = _first_call(process, first, given, outputs, deadline, found)
        if stopped is not None or found.crash is not None:
            return stopped or found
        slot = process.open(given, outputs)
        if isinstance(slot, Crash):
            found.crash = slot
            return found
        for number, (gate, draw) in enumerate(draws if found.ok else []):
            given.write(memory.flatten(draw.inputs)[1])
            result = _gate(process, slot, draw, deadline, found, first=number == 0)
            if isinstance(result, BuildWanted):
                return result
            if result is None:
                break
            found.sets.append(result.model_copy(update={"name": gate}))
            if not result.ok:
                session.retire(draw)
                break
    return found


def _gate(
    process: candidate.Candidate, slot: int, draw: Draw, deadline: Deadline, found: Checked, *, first: bool
) -> api.SetResult | BuildWanted | None:
    """One gate's verdict; None after a crash, which is in `found`. The first one runs three times."""
    earlier: list[list[Tensor]] = []
    for _ in range(REPEATS if first else 1):
        ran = process.run(slot, deadline.left(CALL_S))
        if not isinstance(ran, Ran):
            return _stopped(ran, found)
        found.slowest_s = max(found.slowest_s, ran.elapsed_s)
        result = judged(draw, ran)
        if not result.ok:
            return result
        earlier.append(ran.outputs)
    if first:
        found.deterministic = all(_same(earlier[0], other) for other in earlier[1:])
        found.allclose = correctness.kernelbench(draw, earlier[0])
    found.kernels, found.torch_ops, found.largest_launch = ran.kernels, ran.torch_ops, ran.largest_launch
    return result


def _first_call(
    process: candidate.Candidate, draw: Draw, given: Region, outputs: Region, deadline: Deadline, found: Checked
) -> BuildWanted | None:
    """A call on a writable copy, to see whether the candidate modifies its inputs; what it finds is in `found`."""
    with given.twin() as twin:
        slot = process.open(twin, outputs)
        if isinstance(slot, Crash):
            found.crash = slot
            return None
        ran = process.run(slot, deadline.left(CALL_S))
        if not isinstance(ran, Ran):
            return _stopped(ran, found)
        changed = twin.changed(given)
    if changed and not any(draw.aliases):
        reason = f"input {changed[0]} was modified; write results into new tensors"
        found.sets.append(api.SetResult(name=draw.gate, ok=False, reason=reason, shapes=draw.shapes))
    return None


def _stopped(ran: Any, found: Checked) -> BuildWanted | None:
    if isinstance(ran, BuildWanted):
        return ran
    found.crash = ran
    return None


def judged(draw: Draw, ran: Ran) -> api.SetResult:
    """The referee's verdict on one call; a claim of success without bytes is an unwritten output."""
    reason = correctness.structure(draw, ran.metas, ran.skeleton)
    if not reason and ran.unwritten:
        reason = "the output was never written"
    if reason:
        return api.SetResult(name=draw.gate, ok=False, reason=reason, shapes=draw.shapes)
    return correctness.judge(draw, ran.outputs, ran.metas, ran.skeleton)


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(bool(((a == b) | ((a != a) & (b != b))).all()) for a, b in zip(one, other, strict=True))  # noqa: PLR0124


def recheck(process: candidate.Candidate, session: Session, deadline: Deadline) -> Checked:
    """Load and check a candidate whose builds are all there."""
    found = reload(process, session, deadline) or check(process, session, deadline)
    return found if isinstance(found, Checked) else Checked(crash=_settled(found))


def reload(process: candidate.Candidate, session: Session, deadline: Deadline) -> Crash | None:
    """As `load`, for a candidate whose builds are all there."""
    trouble = load(process, session, deadline)
    return None if trouble is None else _settled(trouble)


def _settled(trouble: Crash | BuildWanted) -> Crash:
    """To wish for yet another build is a candidate's fault like any crash."""
    if isinstance(trouble, BuildWanted):
        return Crash("exception", "load_inline", message="asks for other builds each time it runs")
    return trouble


@dataclass
class Ablated:
    """What became of the answer without its kernels."""

    answers: dict[str, str] = field(default_factory=dict)
    """`right`, `wrong` or `error` by mode; modes after the first `right` were not tried."""
    unsteady: Crash | api.SetResult | None = None
    """What went wrong with its kernels on, although the gates had found nothing: it fails by chance."""


def ablate(zygote: Zygote, job: Job, session: Session, deadline: Deadline, slowest_s: float) -> Ablated:
    """Run it in fresh processes with its kernels disabled. `slowest_s`: its longest call with them."""
    trial = _Trial(zygote, job, session, deadline, _draws(session), slowest_s)
    found = Ablated()
    for mode in MODES:
        if not _tells(mode, trial.draws):
            continue
        answer = trial.without(mode)
        if answer == "error" and mode != "raise":
            # Garbage may make an honest kernel raise, but never with its kernels on, and always again. Whoever raises
            # by chance to look like it must be lucky each time.
            found.unsteady = trial.trouble_with_kernels()
            if found.unsteady is not None:
                break
            answer = trial.without(mode)
        found.answers[mode] = answer
        if answer == "right":
            break
    return found


def zeros_tell(session: Session) -> bool:
    """Whether kernels that do nothing must be noticed: not where the problem's answer is zeros."""
    return _tells("zeros", _draws(session))


def _draws(session: Session) -> list[Draw]:
    return [draw for _, draw in session.draws(inputs.OWN[:2])]


def _tells(mode: str, draws: Sequence[Draw]) -> bool:
    """Whether a mode's fill is a wrong answer. Where it is right, an honest kernel's answer stays right, too."""
    if mode not in FILLS:
        return True
    return not any(correctness.right(draw, [torch.full_like(t, FILLS[mode]) for t in draw.eager]) for draw in draws)


@dataclass(frozen=True)
class _Trial:
    """Two calls that look like a check's first ones: each time in a fresh process, and on the same draws."""

    zygote: Zygote
    job: Job
    session: Session
    deadline: Deadline
    draws: Sequence[Draw]
    slowest_s: float

    def without(self, mode: str) -> str:
        """`right` if any answer is, else `wrong` or `error`."""
        outcomes = self._outcomes(mode, min(CALL_S, DISABLED_S + SLOWER * self.slowest_s))
        if any(isinstance(o, api.SetResult) and o.ok for o in outcomes):
            return "right"
        return "error" if any(isinstance(o, Crash) for o in outcomes) else "wrong"

    def trouble_with_kernels(self) -> Crash | api.SetResult | None:
        """The first thing that goes wrong although nothing is disabled."""
        return next((o for o in self._outcomes(None, CALL_S) if isinstance(o, Crash) or not o.ok), None)

    def _outcomes(self, mode: str | None, longest: float) -> list[Crash | api.SetResult]:
        with self.zygote.spawn(replace(self.job, ablation=mode)) as process:
            trouble = reload(process, self.session, self.deadline)
            return [trouble] if trouble else self._called(process, longest)

    def _called(self, process: candidate.Candidate, longest: float) -> list[Crash | api.SetResult]:
        found: list[Crash | api.SetResult] = []
        first = self.draws[0]
        with Region.inputs(first.inputs) as given, Region.outputs(first.eager) as outputs:
            for draw in self.draws:
                given.write(memory.flatten(draw.inputs)[1])
                with nullcontext(given) if draw is not first else given.twin() as region:
                    slot = process.open(region, outputs)
                    ran = process.run(slot, self.deadline.left(longest)) if isinstance(slot, int) else slot
                found.append(judged(draw, ran) if isinstance(ran, Ran) else _settled(ran))
        return found
