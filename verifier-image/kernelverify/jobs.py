"""Queues, lanes and the detour by the builders: what happens between a submission and its report.

One lane is one referee process on one device, and judges one candidate at a time. While a candidate's library is
built its lane serves others. A referee that dies, hangs or speaks nonsense is replaced: that is infrastructure, the job
runs once more. Whatever goes wrong, every job ends: nobody waits for a report that will not come.
"""

import asyncio
import itertools
import logging
import secrets
import socket
import sys
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kernelverify import ipc, resources, scratch
from kernelverify.build.service import Builder
from kernelverify.host import census, verdict
from kernelverify.resources import HostError
from kernelverify.sandbox import kernel
from kernelverify.settings import Settings
from kernelverify_api.report import AuditReport, Report, Stage, Status
from kernelverify_api.request import Audit, Evaluation
from kernelverify_api.service import ErrorBody

_LOG = logging.getLogger(__name__)

CHANNEL_LIMIT = 4 << 20
MOST_BUILDS = 4
START_S, AUDIT_S = 180.0, 300.0
GRACE_S = 15.0
"""Beyond an evaluation's own time, until its referee counts as hanging."""
TRIES = 2
PAUSE_S, MOST_PAUSE_S = 1.0, 60.0
"""After a lane that did not start: the first pause, doubled each time, and the longest."""
STARTS = 3
"""Lanes that fail to start in a row until those who wait are told so."""
KEPT = 2048
"""Finished jobs that can still be read."""
Read = TypeVar("Read")
TERMINAL = frozenset({Stage.DONE, Stage.FAILED, Stage.CANCELLED, Stage.INFRA_ERROR})


class FullError(Exception):
    """Too many jobs wait; come back later."""


class ProblemError(Exception):
    """The reference is unusable; message and line are for its author."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message, self.line = message, line


class LaneError(HostError):
    """The referee could not start, died, hung or spoke nonsense."""


@dataclass(frozen=True)
class Wanted:
    """A build that the candidate asked for, in its own words."""

    request: dict[str, Any]


Outcome = Report | ErrorBody | Wanted
"""How a round on a lane ends: a verdict, what is wrong with the problem, or a build that comes first."""


@dataclass
class Job:
    """One submission on its way."""

    id: str
    asked: Evaluation
    passed: list[Stage] = field(default_factory=lambda: [Stage.QUEUED])
    """Every stage so far, the present one last. Kept, because one may be over before whoever follows has looked."""
    report: Report | None = None
    error: ErrorBody | None = None
    builds: dict[str, dict[str, Any]] = field(default_factory=dict)
    tries: int = 0
    started: float = 0.0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    lane: "Lane | None" = None

    @property
    def stage(self) -> Stage:
        return self.passed[-1]

    @property
    def finished(self) -> bool:
        return self.stage in TERMINAL

    async def move(self, stage: Stage) -> None:
        if not self.finished and stage is not self.stage:
            self.passed.append(stage)
            async with self.changed:
                self.changed.notify_all()

    async def finish(self, stage: Stage, report: Report | None = None, error: ErrorBody | None = None) -> None:
        if not self.finished:
            self.report, self.error = report, error
            await self.move(stage)

    async def wait(self, seconds: float | None) -> None:
        """Until it is finished, or so long."""
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: self.finished), seconds)
            except TimeoutError:
                return

    async def stages(self) -> AsyncIterator[Stage]:
        """Each stage as it comes, from the first; none is left out."""
        told = 0
        while told < len(self.passed) or not self.finished:
            async with self.changed:
                await self.changed.wait_for(lambda: len(self.passed) > told)  # noqa: B023 - waited for at once
            yield self.passed[told]
            told += 1


class Lane:
    """One referee process."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.ready = device, False
        self.capabilities: dict[str, Any] = {}
        self._threads = threads
        self._process: asyncio.subprocess.Process | None = None
        self._channel: ipc.AsyncChannel | None = None
        self._scratch: Path | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Have a live referee that answers. Raises LaneError."""
        if self.ready:
            return
        await self.kill()
        try:
            await self._launch()
        except OSError as error:
            await self.kill()
            raise LaneError(f"cannot start a referee: {resources.told(error)}") from error
        answer = await self._ask({"op": "ping"}, START_S)
        self.capabilities = dict(answer.get("capabilities", {}))
        self.ready = True

    async def _launch(self) -> None:
        self._scratch = scratch.make()
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-B", "-m", "kernelverify.host", "--fd", str(theirs.fileno())),
                *("--threads", str(self._threads), "--workdir", str(self._scratch)),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the service's to handle, before the referee can say so, too
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = await ipc.AsyncChannel.from_socket(ours, CHANNEL_LIMIT)

    async def evaluate(self, job: Job) -> Outcome:
        """The referee's last word on this round. Raises LaneError."""
        request = {"op": "evaluate", "id": job.id, "request": job.asked.model_dump(mode="json"), "builds": job.builds}
        async with self._lock:
            await self.start()
            answer = await self._ask(request, job.asked.options.timeout_s + GRACE_S, job)
            return await self._trusted(_outcome, answer)

    async def audit(self, asked: Audit) -> AuditReport:
        """Raises ProblemError and LaneError."""
        async with self._lock:
            await self.start()
            answer = await self._ask({"op": "audit", "request": asked.model_dump(mode="json")}, AUDIT_S)
            return await self._trusted(_audited, answer)

    async def _trusted(self, read: Callable[[dict[str, Any]], Read], answer: dict[str, Any]) -> Read:
        """What an answer says; a referee that cannot be understood is of no more use."""
        try:
            return read(answer)
        except LaneError:
            await self.kill()
            raise
        except (KeyError, TypeError, ValueError) as error:
            await self.kill()
            raise LaneError(f"the referee's answer is malformed: {str(error)[:300]}") from error

    async def kill(self) -> None:
        """End the referee and, with it, all that it started."""
        self.ready = False
        if self._channel is not None:
            await self._channel.close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await asyncio.to_thread(census.end_orphans)
        if self._scratch is not None:
            scratch.remove(self._scratch)
        self._process = self._channel = self._scratch = None

    async def _ask(self, message: dict[str, Any], seconds: float, job: Job | None = None) -> dict[str, Any]:
        if self._channel is None:
            raise LaneError("the referee is not running")
        kills_before = resources.out_of_memory_kills()
        try:
            async with asyncio.timeout(seconds):
                await self._channel.send(message)
                while (answer := await self._channel.receive())["event"] == "stage":
                    if job is not None:
                        await job.move(Stage(answer["stage"]))
                return answer
        except (TimeoutError, ipc.ChannelError, KeyError, ValueError) as error:
            short = resources.out_of_memory_kills() > kills_before
            await self.kill()
            hint = f"; meanwhile the machine's memory ran out: {resources.MEMORY}" if short else ""
            raise LaneError(f"the referee failed: {str(error)[:300] or 'no answer in time'}{hint}") from error
        except BaseException:  # cancelled in the middle of an answer: the channel is of no more use
            await asyncio.shield(self.kill())
            raise


class Jobs:
    """All jobs of one verifier."""

    def __init__(self, settings: Settings, lanes: list[Lane] | None = None) -> None:
        self.settings = settings
        self.lanes = lanes or [Lane("cpu", settings.lane_threads)]
        self.builder = Builder(settings.cache, settings.build_workers or None)
        self.draining = False
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._keys: dict[tuple[str, str], str] = {}
        self._results: OrderedDict[str, str] = OrderedDict()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._wake = asyncio.Condition()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._detours: set[asyncio.Task[None]] = set()
        self._uncounted: list[Report] = []

    async def start(self) -> None:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # what a dead referee leaves behind comes here to be ended
        self.builder.prepare()
        self._workers = [asyncio.create_task(self._serve(lane)) for lane in self.lanes]

    async def close(self) -> None:
        """Stop everything; jobs that wait or run end as cancelled."""
        self.draining = True
        tasks = [*self._workers, *self._detours, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in list(self._jobs.values()):
            await self._cancelled(job, "the verifier is shutting down")
        await self.builder.close()
        for lane in self.lanes:
            await lane.kill()

    @property
    def queued(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    async def submit(self, asked: Evaluation) -> Job:
        """Queue it; a repeated key or an identical submission returns the job there is. Raises FullError."""
        known = self._known(asked)
        if known is not None:
            return known
        if self.draining or self.queued >= self.settings.queue:
            raise FullError(f"{self.queued} jobs wait, at most {self.settings.queue} may")
        job = Job(id=secrets.token_hex(8), asked=asked)
        self._jobs[job.id] = job
        if asked.idempotency_key:
            self._keys[asked.client, asked.idempotency_key] = job.id
        if not asked.options.fresh and asked.options.seed is None:
            self._results[_same(asked)] = job.id
        self._forget()
        if asked.deadline_s is not None:
            asyncio.get_running_loop().call_later(asked.deadline_s, self._expire, job.id)
        await self._queue(job)
        return job

    def uncounted(self) -> list[Report]:
        """Reports that came since the last call, for the metrics."""
        fresh, self._uncounted = self._uncounted, []
        return fresh

    def get(self, identity: str) -> Job | None:
        return self._jobs.get(identity)

    def position(self, job: Job) -> int:
        """Jobs ahead of a waiting one, as turns go round."""
        order = itertools.chain.from_iterable(itertools.zip_longest(*self._waiting.values()))
        ahead = [j for j in order if j is not None]
        return ahead.index(job) if job in ahead else 0

    async def cancel(self, job: Job, reason: str = "cancelled by the client") -> None:
        """End it wherever it is."""
        for line in self._waiting.values():
            if job in line:
                line.remove(job)
        task = self._running.get(job.id)
        await self._cancelled(job, reason)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def audit(self, asked: Audit) -> AuditReport:
        """Raises ProblemError and LaneError."""
        return await self.lanes[0].audit(asked)

    def _known(self, asked: Evaluation) -> Job | None:
        identity = self._keys.get((asked.client, asked.idempotency_key or ""))
        if identity is None and not asked.options.fresh and asked.options.seed is None:
            identity = self._results.get(_same(asked))
        job = self._jobs.get(identity or "")
        useless = job is None or job.stage in {Stage.CANCELLED, Stage.INFRA_ERROR}
        return None if useless else job

    def _forget(self) -> None:
        """Old finished jobs, so that memory stays bounded."""
        while len(self._jobs) > KEPT:
            oldest = next((j for j in self._jobs.values() if j.finished), None)
            if oldest is None:
                return
            del self._jobs[oldest.id]
        for table in (self._keys, self._results):
            gone = [key for key, identity in table.items() if identity not in self._jobs]
            for key in gone:
                del table[key]  # type: ignore[arg-type]

    def _expire(self, identity: str) -> None:
        job = self._jobs.get(identity)
        if job is not None and not job.finished:
            task = asyncio.get_running_loop().create_task(self.cancel(job, "its deadline has passed"))
            self._detours.add(task)
            task.add_done_callback(self._detours.discard)

    async def _cancelled(self, job: Job, reason: str) -> None:
        await job.finish(Stage.CANCELLED, verdict.ended(job.id, Status.CANCELLED, reason, job.asked.options.level))

    async def _queue(self, job: Job, *, first: bool = False) -> None:
        line = self._waiting.setdefault(job.asked.client, deque())
        (line.appendleft if first else line.append)(job)
        async with self._wake:
            self._wake.notify()

    async def _next(self) -> Job:
        """Round robin between clients, in order within one."""
        async with self._wake:
            await self._wake.wait_for(lambda: any(self._waiting.values()))
            client = next(c for c, line in self._waiting.items() if line)
            job = self._waiting[client].popleft()
            self._waiting.move_to_end(client)
            if not self._waiting[client]:
                del self._waiting[client]
            return job

    async def _serve(self, lane: Lane) -> None:
        pause, failures = PAUSE_S, 0
        while True:
            try:
                await lane.start()
            except Exception as error:  # noqa: BLE001 - or our own mistake: whoever serves a lane never ends by accident
                failures += 1
                _LOG.warning("no lane, try %d: %s", failures, error, exc_info=not isinstance(error, LaneError))
                if failures >= STARTS and not any(other.ready for other in self.lanes):
                    await self._give_up(f"no lane starts: {error}")
                await asyncio.sleep(pause)
                pause = min(MOST_PAUSE_S, 2 * pause)
                continue
            pause, failures = PAUSE_S, 0
            job = await self._next()
            task = asyncio.create_task(self._round(lane, job))
            self._running[job.id] = task
            (failed,) = await asyncio.gather(task, return_exceptions=True)
            self._running.pop(job.id, None)
            if isinstance(failed, Exception):
                _LOG.error("a job failed in the verifier itself", exc_info=failed)
                lane.ready = False  # so that it starts anew
                await self._again(job, f"{type(failed).__name__}: {failed}")

    async def _round(self, lane: Lane, job: Job) -> None:
        """One turn of a job on a lane."""
        job.started = job.started or time.monotonic()
        try:
            outcome = await lane.evaluate(job)
        except LaneError as error:
            await self._again(job, str(error))
            return
        match outcome:
            case Report():
                self._uncounted.append(outcome)
                await job.finish(Stage.DONE, outcome)
            case ErrorBody():
                await job.finish(Stage.FAILED, error=outcome)
            case Wanted():
                await self._detour(job, outcome.request)

    async def _give_up(self, reason: str) -> None:
        """Nobody here can judge what waits: let its clients go elsewhere."""
        waiting = [job for line in self._waiting.values() for job in line]
        self._waiting.clear()
        for job in waiting:
            report = verdict.ended(job.id, Status.INFRA_ERROR, reason, job.asked.options.level)
            await job.finish(Stage.INFRA_ERROR, report)

    async def _again(self, job: Job, reason: str) -> None:
        """Infrastructure failed: once more on a fresh referee, then say so."""
        job.tries += 1
        if job.tries < TRIES:
            await self._queue(job, first=True)
            return
        report = verdict.ended(job.id, Status.INFRA_ERROR, reason, job.asked.options.level)
        await job.finish(Stage.INFRA_ERROR, report)

    async def _detour(self, job: Job, wanted: dict[str, Any]) -> None:
        """Off the lane to the builders, and back into the queue."""
        if len(job.builds) >= MOST_BUILDS:
            error = {"file": "candidate.py", "message": f"asks for more than {MOST_BUILDS} builds; put them into one"}
            job.builds[str(wanted.get("key", ""))] = {"ok": False, "errors": [error]}
            await self._queue(job, first=True)
            return
        await job.move(Stage.BUILDING)
        task = asyncio.create_task(self._build(job, wanted))
        self._detours.add(task)
        task.add_done_callback(self._detours.discard)

    async def _build(self, job: Job, wanted: dict[str, Any]) -> None:
        try:
            result = await self.builder.build(wanted)
        except Exception as error:  # noqa: BLE001 - no compiler, a full disk, our own mistake: the job has to end
            known = isinstance(error, HostError | OSError)
            _LOG.warning("a build failed in the verifier itself: %s", error, exc_info=None if known else error)
            reason = f"cannot build: {resources.told(error)}"
            report = verdict.ended(job.id, Status.INFRA_ERROR, reason, job.asked.options.level)
            await job.finish(Stage.INFRA_ERROR, report)
            return
        job.builds[str(wanted.get("key", ""))] = result.as_message()
        if not job.finished:
            await job.move(Stage.WAITING)
            await self._queue(job, first=True)


def _outcome(answer: dict[str, Any]) -> Outcome:
    """Raises LaneError, and what pydantic and dicts raise when the answer is malformed."""
    match answer["event"]:
        case "report":
            return Report.model_validate(answer["report"])
        case "problem_error":
            line = answer.get("line")
            return ErrorBody(error=answer["message"], field=f"problem.source:{line}" if line else "problem.source")
        case "build":
            return Wanted(dict(answer["request"]))
    raise LaneError(str(answer.get("message", answer["event"])))


def _audited(answer: dict[str, Any]) -> AuditReport:
    """Raises ProblemError and what `_outcome` raises."""
    if answer["event"] == "problem_error":
        raise ProblemError(answer["message"], answer.get("line"))
    if answer["event"] != "audit":
        raise LaneError(str(answer.get("message", answer["event"])))
    return AuditReport.model_validate(answer["report"])


def _same(asked: Evaluation) -> str:
    """What makes two submissions identical: everything but who asks and when."""
    return asked.model_dump_json(include={"problem", "source", "options"})
