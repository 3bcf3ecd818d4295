"""A verifier service without a judge: real HTTP, the real wire contract, verdicts as told. For tests of its clients."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from pydantic import BaseModel

from kernelverify_api.report import AuditReport, Report, Stage, Status
from kernelverify_api.request import Audit, Evaluation
from kernelverify_api.service import AuditState, Capabilities, ErrorBody, JobState, Lane, Ticket

TERMINAL = {Status.INFRA_ERROR: Stage.INFRA_ERROR, Status.CANCELLED: Stage.CANCELLED}
CAPABILITIES = Capabilities(
    version="0.1.0",
    lanes=(Lane(device="cpu", name="a fake CPU", ready=True, facts={"cores": "2"}),),
    languages=("cpp", "triton"),
    emulated_languages=("triton",),
)


def report(status: Status = Status.CORRECT, job: str = "j1", summary: str = "as told") -> Report:
    return Report(schema=1, id=job, status=status, summary=summary)


@dataclass
class Job:
    evaluation: Evaluation
    accepted: float = field(default_factory=time.monotonic)
    report: Report | None = None


@dataclass
class FakeVerifier:
    """`statuses` are the verdicts of the next jobs, in turn; once used up everything is correct."""

    statuses: list[Status] = field(default_factory=list)
    judge: Callable[[Evaluation], Report] | None = None
    """Says the verdicts in place of `statuses`."""
    seconds: float = 0.0
    """How long a job takes."""
    refusals: list[web.Response] = field(default_factory=list)
    """Answers to the next submissions instead of a ticket."""
    position: int = 0
    fails: bool = False
    """Every job ends as `failed`, with an error and no report."""
    jobs: dict[str, Job] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    """The `wait` parameter of each poll."""
    tokens: list[str] = field(default_factory=list)
    """The `Authorization` header of each submission and poll."""
    url: str = ""
    _numbers: itertools.count = field(default_factory=lambda: itertools.count(1))
    _runner: web.AppRunner | None = None
    _port: socket.socket | None = None
    """Bound and never listening, so that nobody else takes the port while the verifier is away."""

    @property
    def sources(self) -> list[str]:
        """What was submitted, in order."""
        return [job.evaluation.source for job in self.jobs.values()]

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/evaluations", self._submit)
        app.router.add_get("/v1/evaluations/{id}", self._poll)
        app.router.add_delete("/v1/evaluations/{id}", self._delete)
        app.router.add_post("/v1/audits", self._audit)
        app.router.add_get("/v1/capabilities", self._capabilities)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
        await self._runner.setup()
        self._port = self._port or _bound()
        port = self._port.getsockname()[1]
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_port=True).start()
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """For good."""
        await self._runner.cleanup()
        self._port.close()

    async def vanish(self) -> None:
        """Die as a killed pod does: connections break, jobs are forgotten."""
        await self._runner.cleanup()
        self.keys.clear()
        self.jobs = {f"gone-{name}": job for name, job in self.jobs.items()}

    async def come_back(self) -> None:
        await self.start()

    async def _submit(self, request: web.Request) -> web.Response:
        evaluation = Evaluation.model_validate_json(await request.read())
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.refusals:
            return self.refusals.pop(0)
        key = evaluation.idempotency_key
        if key not in self.keys:
            self.keys[key] = f"j{next(self._numbers)}"
            self.jobs[self.keys[key]] = Job(evaluation)
        ticket = Ticket(id=self.keys[key], position=self.position)
        return _json(ticket, status=202)

    async def _poll(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self.tokens.append(request.headers.get("Authorization", ""))
        self.waits.append(request.query.get("wait", ""))
        if name not in self.jobs:
            return refusal(404, f"no job {name}")
        job = self.jobs[name]
        left = job.accepted + self.seconds - time.monotonic()
        await asyncio.sleep(max(0.0, min(left, float(request.query.get("wait", 0)))))
        if job.report is None and time.monotonic() >= job.accepted + self.seconds:
            job.report = self._judged(job, name)
        stage = Stage.CHECKING if job.report is None else TERMINAL.get(job.report.status, Stage.DONE)
        if self.fails:
            error = ErrorBody(error="no baseline 'flexx'; this problem offers eager", field="options.baselines")
            return _json(JobState(id=name, stage=Stage.FAILED, error=error))
        state = JobState(id=name, stage=stage, report=job.report)
        return _json(state)

    def _judged(self, job: Job, name: str) -> Report:
        if self.judge is not None:
            return self.judge(job.evaluation).model_copy(update={"id": name})
        return report(self.statuses.pop(0) if self.statuses else Status.CORRECT, name)

    async def _delete(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["id"])
        return web.Response(status=204)

    async def _audit(self, request: web.Request) -> web.Response:
        audit = Audit.model_validate_json(await request.read())
        if self.refusals:
            return self.refusals.pop(0)
        state = AuditState(report=AuditReport(schema=1, problem=audit.problem.name, sound=True))
        return _json(state)

    async def _capabilities(self, _: web.Request) -> web.Response:
        if self.refusals:
            return self.refusals.pop(0)
        return _json(CAPABILITIES)


def _bound() -> socket.socket:
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    port.bind(("127.0.0.1", 0))
    return port


def _json(body: BaseModel, status: int = 200) -> web.Response:
    return web.Response(status=status, text=body.model_dump_json(by_alias=True), content_type="application/json")


def refusal(status: int, error: str, field_name: str | None = None, **headers: str) -> web.Response:
    body = ErrorBody(error=error, field=field_name)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, text=body.model_dump_json(), content_type="application/json", headers=named)


@asynccontextmanager
async def running(*verifiers: FakeVerifier) -> AsyncIterator[list[str]]:
    """Serve them all; gives their URLs."""
    for verifier in verifiers:
        await verifier.start()
    try:
        yield [verifier.url for verifier in verifiers]
    finally:
        for verifier in verifiers:
            await verifier.stop()
