"""One evaluation from source to report. Trusted; decides what runs, in which process, and believes only bytes.

static ─ load ─(build?)─ gates ─ ablation ─ timing ─ again in fresh processes, for a champion
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kernelverify import resources
from kernelverify.host import audit, census, checking, clocking, correctness, inputs, static, verdict
from kernelverify.host.baseline import Baseline
from kernelverify.host.candidate import BuildWanted, Candidate, Crash, Job
from kernelverify.host.checking import Checked, Deadline, OutOfTimeError
from kernelverify.host.reference import Draw
from kernelverify.host.session import Session
from kernelverify.host.zygote import Zygote
from kernelverify.resources import HostError
from kernelverify_api import report as api
from kernelverify_api.request import Audit, CustomKernel, Evaluation, Level

SESSIONS = 4
"""Problems kept warm."""
SMALL_SHARE = 0.01
"""Tensors below this share of the inputs' elements are nobody's computation."""

Emit = Callable[[api.Stage], None]
Builds = Mapping[str, Mapping[str, Any]]


class Referee:
    """Judges one candidate at a time. Raises ProblemError and HostError; everything else is in the report."""

    def __init__(self, scratch: Path, threads: int) -> None:
        self._zygote = Zygote(scratch)
        self._threads = threads
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        torch.set_num_threads(threads)

    def start(self) -> None:
        self._zygote.start()

    def close(self) -> None:
        self._zygote.close()

    def audit(self, asked: Audit) -> api.AuditReport:
        with resources.own("an audit"):
            return audit.audit(asked.problem, asked.seed)

    def evaluate(self, identity: str, asked: Evaluation, builds: Builds, emit: Emit) -> api.Report | BuildWanted:
        """The verdict, or a build that is needed first."""
        with resources.own("an evaluation"):
            return self._evaluate(identity, asked, builds, emit)

    def _evaluate(self, identity: str, asked: Evaluation, builds: Builds, emit: Emit) -> api.Report | BuildWanted:
        emit(api.Stage.STATIC)
        reading = static.read(asked.source)
        evidence = verdict.Evidence(asked, static=reading.static, build=_build(builds))
        if reading.syntax_error:
            message = api.BuildMessage(file="candidate.py", line=reading.line, message=reading.syntax_error)
            return verdict.compile_error(identity, asked, api.Build(ok=False, errors=(message,)), reading.static)
        if evidence.build is not None and not evidence.build.ok:
            return verdict.compile_error(identity, asked, evidence.build, reading.static)
        session = self._session(asked)
        run = _Run(self._zygote, session, asked, builds, self._threads, reading, evidence, emit)
        found = run.judge()
        return found if isinstance(found, BuildWanted) else run.report(identity, found)

    def _session(self, asked: Evaluation) -> Session:
        """Fresh for a fixed seed, so that a run can be repeated; else the problem's own."""
        if asked.options.seed is not None:
            return Session(asked.problem, asked.options.seed)
        key = asked.problem.model_dump_json()
        if key not in self._sessions:
            self._sessions[key] = Session(asked.problem)
        self._sessions.move_to_end(key)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return self._sessions[key]


class _Run:
    """One evaluation's state."""

    def __init__(
        self,
        zygote: Zygote,
        session: Session,
        asked: Evaluation,
        builds: Builds,
        threads: int,
        reading: static.Reading,
        evidence: verdict.Evidence,
        emit: Emit,
    ) -> None:
        self._zygote, self._session, self._asked, self._threads = zygote, session, asked, threads
        self._evidence, self._emit = evidence, emit
        self._deadline = Deadline(time.monotonic() + asked.options.timeout_s)
        paths = {key: str(build["path"]) for key, build in builds.items() if build.get("ok")}
        # the judge's own choice of threads must not use up what the candidate may start
        limits = census.Limits(tasks=census.Limits.tasks + threads)
        self._job = Job(source=asked.source, builds=paths, threads=threads, limits=limits)
        self._emulated = "triton" in reading.imports and not paths
        self._logs = api.Logs()
        self._sandbox: dict[str, str] = {}
        self._stages: dict[str, float] = {}
        self._warnings: tuple[api.SetResult, ...] = ()

    def judge(self) -> verdict.Evidence | BuildWanted:
        try:
            return self._judge()
        except OutOfTimeError:
            message = f"the evaluation took longer than {self._asked.options.timeout_s:.0f} s"
            return replace(self._evidence, failure=api.Failure(kind="timeout", stage="evaluation", message=message))

    def _judge(self) -> verdict.Evidence | BuildWanted:
        self._emit(api.Stage.CHECKING)
        checked = self._timed("check", self._check)
        if isinstance(checked, BuildWanted):
            return checked
        self._take(checked)
        if not checked.ok:
            return self._evidence
        ablated = self._timed("ablation", lambda: self._ablation(checked.slowest_s))
        kernels = api.Kernels(
            ablation=ablated.answers, custom_launched=checked.kernels, torch_ops=dict(checked.torch_ops)
        )
        self._evidence = replace(self._evidence, kernels=kernels, emulated=self._emulated)
        if ablated.unsteady is not None:
            self._take(_spoilt(checked, ablated.unsteady))
            return self._evidence
        level = self._asked.options.level
        if self._asked.options.custom_kernel is CustomKernel.REQUIRED and self._trifling(checked):
            self._evidence = replace(self._evidence, trifling=True)
        if level is Level.CHECK or verdict.decide(self._evidence)[0] is not api.Status.CORRECT:
            return self._evidence
        if level is Level.CHAMPION:
            self._timed("champion", self._again)
            if verdict.decide(self._evidence)[0] is not api.Status.CORRECT:
                return self._evidence
        if not self._emulated:
            self._emit(api.Stage.TIMING)
            self._timed("timing", self._clock)
        return self._evidence

    def _check(self) -> Checked | BuildWanted:
        first = self._session.draw(inputs.OWN[0])
        largest = _largest(first) if first else 0
        with self._zygote.spawn(replace(self._job, count_ops_above=int(largest * SMALL_SHARE))) as process:
            self._sandbox = process.sandbox
            trouble = checking.load(process, self._session, self._deadline)
            if isinstance(trouble, BuildWanted):
                return trouble
            checked = Checked(crash=trouble) if trouble else checking.check(process, self._session, self._deadline)
            self._logs = api.Logs(stdout=process.logs[0], stderr=process.logs[1])
            return checked

    def _trifling(self, checked: Checked) -> bool:
        """Whether its kernels touch nothing of the size of an input or an output, while torch computes."""
        draw = self._session.draw(inputs.OWN[0])
        if draw is None or not checked.torch_ops:
            return False
        outputs = max((t.numel() for t in draw.eager), default=0)
        return checked.largest_launch < min(outputs, SMALL_SHARE * _largest(draw))

    def _ablation(self, slowest_s: float) -> checking.Ablated:
        if self._asked.options.custom_kernel is not CustomKernel.REQUIRED:
            return checking.Ablated()
        return checking.ablate(self._zygote, self._job, self._session, self._deadline, slowest_s)

    def _again(self) -> None:
        """A champion's second check: a fresh process, draws nobody has seen, and the sets that only warn."""
        session = Session(self._asked.problem, self._asked.options.seed)
        with self._zygote.spawn(self._job) as process:
            checked = checking.recheck(process, session, self._deadline)
            if checked.ok:
                self._warnings = tuple(self._warning(process, session, name) for name in inputs.WARNING_SETS)
        self._take(checked)

    def _warning(self, process: Any, session: Session, name: str) -> api.SetResult:
        try:
            found = checking.check(process, session, self._deadline, gates=(name,))
        except (OutOfTimeError, HostError):
            raise
        except Exception as error:  # a reference may do anything on inputs it was not written for
            if resources.shortage(error):
                raise
            return api.SetResult(name=name, ok=False, reason=f"not judged: {type(error).__name__}")
        sets = found.sets if isinstance(found, Checked) else []
        return sets[0] if sets else api.SetResult(name=name, ok=False, reason="not judged")

    def _clock(self) -> None:
        session, names = self._session, self._asked.options.baselines
        with Baseline(self._threads) as base:
            base.start(session.asked, session.model_seed, names)
            self._zygote.kept.add(base.pid)
            try:
                clocked = self._clocked(base, names)
            finally:
                self._zygote.kept.discard(base.pid)
        if clocked.wrong is not None and self._evidence.correctness is not None:
            sets = (*self._evidence.correctness.sets, clocked.wrong)
            wrong = self._evidence.correctness.model_copy(update={"ok": False, "sets": sets})
            self._evidence = replace(self._evidence, correctness=wrong)
        if clocked.idle and self._evidence.kernels is not None:
            ablation = {**self._evidence.kernels.ablation, "timed": clocked.idle}
            kernels = self._evidence.kernels.model_copy(update={"ablation": ablation})
            self._evidence = replace(self._evidence, kernels=kernels)
        flags = clocked.flags
        if self._asked.options.level is Level.CHAMPION:  # confirmed: only the impossible stays impossible
            flags = [f.model_copy(update={"severity": "info"}) if f.rule == "implausible_speedup" else f for f in flags]
        self._evidence = replace(
            self._evidence,
            failure=_failure(clocked.crash, self._asked.source),
            timing=clocked.timing,
            flags=tuple(flags),
        )

    def _clocked(self, base: Baseline, names: tuple[str, ...]) -> clocking.Clocked:
        with ExitStack() as processes:

            def start() -> Candidate | Crash:
                process = processes.enter_context(self._zygote.spawn(self._job))
                return checking.reload(process, self._session, self._deadline) or process

            process = start()
            if isinstance(process, Crash):
                return clocking.Clocked(crash=process)
            required = self._asked.options.custom_kernel is CustomKernel.REQUIRED
            needs_kernel = required and checking.zeros_tell(self._session)
            clock = clocking.Clock(process, start, base, self._session, self._deadline, needs_kernel=needs_kernel)
            return clock.measure(names)

    def _take(self, checked: Checked) -> None:
        """The gates' findings into the evidence."""
        sets = tuple(checked.sets)
        dropped = tuple(self._session.dropped.values())
        first = self._session.draw(inputs.OWN[0])
        found = api.Correctness(
            ok=checked.ok,
            reference="fp64" if first is None or first.rule.fp64 else "fp32",
            precision_checked=not any(d.name in inputs.FLIPPED for d in dropped),
            gates_dropped=dropped,
            sets=sets,
            precision_class=correctness.precision_class(sets),
            deterministic=checked.deterministic,
            kernelbench_allclose=checked.allclose,
        )
        self._evidence = replace(
            self._evidence,
            correctness=found if sets or checked.ok else None,
            failure=_failure(checked.crash, self._asked.source),
        )

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return work()
        finally:
            self._stages[name] = round((time.monotonic() - start) * 1e3, 1)

    def report(self, identity: str, evidence: verdict.Evidence) -> api.Report:
        if evidence.correctness is not None and self._warnings:
            noted = evidence.correctness.model_copy(update={"warnings": self._warnings})
            evidence = replace(evidence, correctness=noted)
        return verdict.report(
            identity,
            evidence,
            integrity=api.Integrity(flags=evidence.flags, sandbox=self._sandbox),
            environment=environment(emulated=self._emulated),
            logs=self._logs,
            stages_ms=self._stages,
        )


def _spoilt(checked: Checked, unsteady: Crash | api.SetResult) -> Checked:
    """What the gates found, and what one more run in between did."""
    if isinstance(unsteady, Crash):
        return replace(checked, crash=replace(unsteady, message=f"in one of several runs: {unsteady.message}"))
    again = unsteady.model_copy(update={"reason": f"in one of several runs, {unsteady.reason}"})
    return replace(checked, sets=[*checked.sets, again])


def _largest(draw: Draw) -> int:
    """Elements of the largest input."""
    return max((t.numel() for t in tree_leaves(draw.inputs) if isinstance(t, Tensor)), default=0)


def environment(*, emulated: bool = False) -> api.Environment:
    return api.Environment(device="cpu", torch=torch.__version__, triton=triton.__version__, emulated=emulated)


def _build(builds: Builds) -> api.Build | None:
    """All builds of an evaluation as one: bad if one is, as long as all together."""
    if not builds:
        return None
    return api.Build(
        ok=all(b.get("ok") for b in builds.values()),
        seconds=sum(float(b.get("seconds", 0)) for b in builds.values()),
        cache_hit=all(bool(b.get("cache_hit")) for b in builds.values()),
        errors=tuple(api.BuildMessage(**e) for b in builds.values() for e in b.get("errors", ())),
    )


def _failure(crash: Crash | None, source: str) -> api.Failure | None:
    if crash is None:
        return None
    lines = source.splitlines()
    known = crash.line is not None and 0 < crash.line <= len(lines)
    kind = crash.type or crash.kind
    return api.Failure(
        kind="timeout" if crash.kind == "timeout" else verdict.clean(kind, 200),
        stage=verdict.clean(crash.stage, 80),
        message=verdict.clean(crash.message),
        line=crash.line if known else None,
        source_line=verdict.clean(lines[crash.line - 1].strip(), 300) if known and crash.line else "",
    )
