"""Times a candidate against baselines by the referee's clock, and checks every answer it gives meanwhile."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from kernelverify.host import candidate, checking, correctness, fresh, memory, roofline, timing
from kernelverify.host.baseline import Baseline
from kernelverify.host.candidate import BuildWanted, Called, Crash, Ran
from kernelverify.host.checking import Deadline
from kernelverify.host.memory import Region
from kernelverify.host.session import Session
from kernelverify_api import report as api

CALL_S, IDLE_S = 30.0, 5.0
"""The longest call, and the longest without kernels, which some never return from."""
FULL_CHECK_ONE_IN = 10
ALONE_ONE_IN = 4
"""Pairs between two calls of the baseline with the candidate at rest, in the midst of the pairs: what else the machine
does changes from second to second, and must not look like the candidate's doing."""
IDLE_ONE_IN = 8
"""Pairs between two calls with the candidate's kernels disabled: what was checked must also be what is timed."""
SLOT = 0


@dataclass
class Clocked:
    """What timing found: a figure, or why there is none."""

    timing: api.Timing | None = None
    flags: list[api.Flag] = field(default_factory=list)
    wrong: api.SetResult | None = None
    crash: Crash | None = None
    idle: str = ""
    """Its answers with its kernels disabled in the midst of timed calls: `right`, `wrong`, or empty when not tried."""


@dataclass
class _Pairs:
    candidate: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    """The baseline's, while the candidate stood still from the drawing of the inputs on."""


class _StopError(Exception):
    """The candidate crashed or answered wrongly while it was timed."""

    def __init__(self, clocked: Clocked) -> None:
        super().__init__()
        self.clocked = clocked


class Clock:
    """One candidate process beside one baseline process, on shared inputs."""

    def __init__(
        self,
        process: candidate.Candidate,
        renew: Callable[[], candidate.Candidate | Crash],
        base: Baseline,
        session: Session,
        deadline: Deadline,
        *,
        needs_kernel: bool,
    ) -> None:
        self._process, self._renew = process, renew
        self._base, self._session, self._deadline = base, session, deadline
        self._needs_kernel = self._tries_idle = needs_kernel
        self._generator = fresh.Generator(session)

    def measure(self, names: Sequence[str]) -> Clocked:
        """The paired test against each baseline."""
        draw = self._generator.own
        with (
            Region.inputs(draw.inputs) as self._inputs,
            Region.outputs(draw.eager) as ours,
            Region.outputs(draw.eager) as theirs,
        ):
            self._ours = ours
            self._base.open(SLOT, self._inputs, theirs)
            self._mine, self._other = ours.read_private(), theirs.read_private()
            try:
                self._open()
                return self._all(names)
            except _StopError as stop:
                return stop.clocked

    def _all(self, names: Sequence[str]) -> Clocked:
        results, medians, flags, own = [], {}, [], []
        for name in names:
            self._warm_baseline(name)
            self._warm()
            pairs = self._pairs(name)
            medians[name] = timing.microseconds(pairs.baseline)
            results.append(timing.speedup(name, pairs.candidate, pairs.baseline))
            own += pairs.candidate
            flags += _disturbed(name, medians[name], timing.microseconds(pairs.alone))
        fastest = min(results, key=lambda s: medians[s.vs])
        score = timing.microseconds(own)
        floor = roofline.floor_us(self._session.bytes_moved(self._generator.own), score)
        flags += _implausible(score, floor, fastest)
        return Clocked(
            timing=api.Timing(
                score_us=score,
                referee_us=score,
                baselines=medians,
                speedup=fastest,
                speedups=tuple(results),
                freshness=self._generator.how,
                roofline=api.Roofline(floor_us=floor, bound="memory", fraction=min(1.0, floor / score)),
            ),
            flags=flags,
            idle="wrong" if self._needs_kernel else "",
        )

    def _open(self) -> None:
        slot = self._process.open(self._inputs, self._ours)
        if isinstance(slot, Crash):
            raise _StopError(Clocked(crash=slot))
        self._slot = slot

    def _warm_baseline(self, name: str) -> None:
        self._fresh()
        times: list[float] = []
        while not timing.warm(times):
            times.append(self._baseline(name)[0])

    def _alone(self, name: str) -> float:
        """Seconds of one call of the baseline on fresh inputs while the candidate stands still."""
        self._fresh()
        return self._baseline(name)[0]

    def _warm(self) -> None:
        self._fresh()
        times: list[float] = []
        while not timing.warm(times):
            times.append(self._told(self._call()).elapsed_s)

    def _pairs(self, name: str) -> _Pairs:
        pairs, start = _Pairs(), time.monotonic()
        while not timing.finished(
            pairs.candidate,
            pairs.baseline,
            sum(pairs.candidate) + sum(pairs.baseline),
            time.monotonic() - start,
        ):
            self._deadline.left(CALL_S)
            if len(pairs.baseline) % ALONE_ONE_IN == 0:
                pairs.alone.append(self._alone(name))
            given = self._fresh()
            if secrets.randbelow(2):
                called, theirs = self._call(), self._baseline(name)
            else:
                theirs, called = self._baseline(name), self._call()
            mine = self._told(called)
            self._verify(mine, theirs[1], given)
            pairs.candidate.append(mine.elapsed_s)
            pairs.baseline.append(theirs[0])
            if not secrets.randbelow(IDLE_ONE_IN):
                self._idle(name)
        self._idle(name)
        return pairs

    def _idle(self, name: str) -> None:
        """One call without its kernels: whoever is still right launches them only where it expects to be checked."""
        if not self._tries_idle:
            return
        given = self._fresh()
        baseline = self._baseline(name)[1]
        ran = self._process.run(self._slot, self._deadline.left(IDLE_S), self._mine, idle=True)
        if self._process.ended:
            self._begin_anew()
        if not isinstance(ran, Ran) or correctness.structure(given.like, ran.metas, ran.skeleton):
            return
        near = correctness.plausible(given.like, ran.outputs, baseline)
        if near and checking.judged(given.answers(self._session), ran).ok:
            raise _StopError(Clocked(idle="right"))

    def _begin_anew(self) -> None:
        """It cannot do without its kernels, which is all that was asked: a loop that waits for them never ends."""
        self._tries_idle = False
        fresh = self._renew()
        if isinstance(fresh, Crash):
            raise _StopError(Clocked(crash=fresh))
        self._process = fresh
        self._open()
        self._warm()

    def _call(self) -> Called:
        called = self._process.call(self._slot, self._deadline.left(CALL_S), self._mine)
        if isinstance(called, BuildWanted):
            called = Crash("exception", "forward", message="asked for a build while it was timed")
        if isinstance(called, Crash):
            raise _StopError(Clocked(crash=called))
        return called  # type: ignore[no-any-return]

    def _told(self, called: Called) -> Ran:
        """Only once the pair is over: between its call and the baseline's the candidate must not run for free."""
        ran = self._process.tell(called)
        if isinstance(ran, Crash):
            raise _StopError(Clocked(crash=ran))
        return ran  # type: ignore[no-any-return]

    def _baseline(self, name: str) -> tuple[float, list[Tensor]]:
        self._process.pause()
        return self._base.run(SLOT, name, self._other)

    def _verify(self, ran: Ran, baseline: list[Tensor], given: fresh.Fresh) -> None:
        """Near the baseline's answer each time; in full on a secret tenth, and whenever the near look fails."""
        reason = correctness.structure(given.like, ran.metas, ran.skeleton)
        briefly = not reason and not ran.unwritten and secrets.randbelow(FULL_CHECK_ONE_IN)
        if briefly and correctness.plausible(given.like, ran.outputs, baseline):
            return
        result = checking.judged(given.answers(self._session), ran)
        if not result.ok:
            wrong = result.model_copy(update={"name": "timed", "reason": f"in a timed call, {result.reason}"})
            raise _StopError(Clocked(wrong=wrong))

    def _fresh(self) -> fresh.Fresh:
        """New inputs in the shared region. The candidate, which sees them, stands still until its clock runs."""
        self._process.pause()
        self._base.pause()
        given = self._generator.fresh()
        self._inputs.write(memory.flatten(given.inputs)[1])
        return given


def _disturbed(name: str, beside_us: float, alone_us: float) -> list[api.Flag]:
    if beside_us <= timing.SLOWED * alone_us:
        return []
    evidence = f"baseline {name} took {beside_us:.1f} us beside the candidate and {alone_us:.1f} us alone"
    severe = beside_us > 2 * alone_us
    return [api.Flag(rule="baseline_disturbed", severity="critical" if severe else "warning", evidence=evidence)]


def _implausible(score_us: float, floor_us: float, against: api.Speedup) -> list[api.Flag]:
    flags = []
    if score_us < timing.FLOOR_SHARE * floor_us:
        evidence = f"{score_us:.1f} us is less than moving its bytes takes ({floor_us:.1f} us)"
        flags.append(api.Flag(rule="below_roofline", severity="critical", evidence=evidence))
    if against.ratio > timing.IMPLAUSIBLE:
        evidence = f"{against.ratio:.1f} times as fast as {against.vs}; it counts once a champion run confirms it"
        flags.append(api.Flag(rule="implausible_speedup", severity="critical", evidence=evidence))
    return flags
