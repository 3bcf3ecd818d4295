"""The HTTP service: thin handlers over `jobs`. Answers health and cancel while a referee hangs."""

import asyncio
import json
import math
import os
import signal
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from kernelverify import __version__, auth, sandbox
from kernelverify.jobs import FullError, Job, Jobs, LaneError, ProblemError
from kernelverify.metrics import Metrics
from kernelverify.resources import HostError
from kernelverify.settings import Settings
from kernelverify_api import service
from kernelverify_api.request import Audit, Evaluation

MOST_BODY = 2 << 20
MOST_WAIT_S = 60.0
MOST_SHOWN = 80
"""Characters of a value that is refused."""
RETRY_S = 5
Asked = TypeVar("Asked", bound=BaseModel)
JOBS = web.AppKey("jobs", Jobs)
METRICS = web.AppKey("metrics", Metrics)
GUARD: web.AppKey[auth.Guard | None] = web.AppKey("guard")
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""For the kubelet and Prometheus, which have no token of ours."""


class BadRequestError(Exception):
    """The request itself is wrong, whatever the problem in it: 400."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


async def serve(settings: Settings, host: str, port: int, guard: auth.Guard | None = None) -> None:
    """Until SIGTERM or Ctrl-C; says where it listens as its first line on stdout."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    jobs = Jobs(settings)
    runner = web.AppRunner(make(jobs, guard), access_log=None)
    await runner.setup()
    try:
        bound = await _listen(runner, host, port)
        await jobs.start()
        print(f"listening on http://{host}:{bound}", flush=True)  # noqa: T201 - clients that start a verifier read it
        await stop.wait()
    finally:
        await jobs.close()
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    """The port. Raises HostError."""
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise HostError(
            f"cannot listen on {host}:{port}: {words}; choose another --port or --host (0 is any free port)"
        ) from error
    return int(site._server.sockets[0].getsockname()[1]) if site._server else port  # type: ignore[attr-defined]  # noqa: SLF001


def make(jobs: Jobs, guard: auth.Guard | None = None) -> web.Application:
    """The application; `guard` says who may ask, None admits everybody."""
    app = web.Application(client_max_size=MOST_BODY, middlewares=[_errors, _admitted])
    app[JOBS], app[METRICS], app[GUARD] = jobs, Metrics(), guard
    app.add_routes(
        [
            web.post("/v1/evaluations", _submit),
            web.get("/v1/evaluations/{id}", _state),
            web.get("/v1/evaluations/{id}/events", _events),
            web.delete("/v1/evaluations/{id}", _cancel),
            web.post("/v1/audits", _audit),
            web.get("/v1/capabilities", _capabilities),
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz),
            web.get("/metrics", _metrics),
        ]
    )
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every failure as an ErrorBody that names the field and the remedy: 400 the request's, 422 the problem's."""
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except BadRequestError as error:
        return _error(400, str(error), error.field)
    except FullError as error:
        return _error(429, f"{error}; try again in {RETRY_S} s", headers={"Retry-After": str(RETRY_S)})
    except ProblemError as error:
        return _error(422, error.message, f"problem.source:{error.line}" if error.line else "problem.source")
    except LaneError as error:
        return _error(503, f"{error}; try again", headers={"Retry-After": str(RETRY_S)})


@web.middleware
async def _admitted(request: web.Request, handler: Any) -> web.StreamResponse:
    """Whose token it is becomes the client, so that nobody takes another's turn by another's name."""
    guard = request.app[GUARD]
    if guard is not None and request.path not in OPEN:
        try:
            request["client"] = guard.client(request.headers.get("Authorization", ""))
        except auth.RefusedError as error:
            return _error(401, str(error))
    return await handler(request)  # type: ignore[no-any-return]


async def _submit(request: web.Request) -> web.Response:
    jobs = request.app[JOBS]
    asked = await _asked(request, Evaluation)
    if "client" in request:
        asked = asked.model_copy(update={"client": request["client"]})
    job = await jobs.submit(asked)
    return _json(service.Ticket(id=job.id, position=jobs.position(job)), status=202)


async def _state(request: web.Request) -> web.Response:
    job = _job(request)
    wait = _wait(request.query.get("wait", "0"))
    if wait and not job.finished:
        await job.wait(wait)
    return _json(_described(request.app[JOBS], job))


def _wait(text: str) -> float:
    """Seconds, at most a minute: whoever wants more asks again. Raises BadRequestError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # NaN, too
        remedy = f"write seconds from 0 to {MOST_WAIT_S:.0f}, such as wait=30, or leave it out"
        raise BadRequestError(f"wait is {_short(text)}: {remedy}", "wait")
    return min(MOST_WAIT_S, seconds)


def _described(jobs: Jobs, job: Job) -> service.JobState:
    position = None if job.finished else jobs.position(job)
    return service.JobState(id=job.id, stage=job.stage, position=position, report=job.report, error=job.error)


async def _events(request: web.Request) -> web.StreamResponse:
    """Stages as server-sent events, ending with the state."""
    job = _job(request)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # whoever asked may leave before the end
        async for stage in job.stages():
            await response.write(f"event: stage\ndata: {stage.value}\n\n".encode())
        state = _described(request.app[JOBS], job).model_dump_json(by_alias=True)
        await response.write(f"event: state\ndata: {state}\n\n".encode())
    return response


async def _cancel(request: web.Request) -> web.Response:
    job = _job(request)
    await request.app[JOBS].cancel(job)
    return _json(_described(request.app[JOBS], job))


async def _audit(request: web.Request) -> web.Response:
    report = await request.app[JOBS].audit(await _asked(request, Audit))
    return _json(service.AuditState(report=report))


async def _asked(request: web.Request, model: type[Asked]) -> Asked:
    """What the body says. Raises BadRequestError."""
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise BadRequestError(f"the body is no JSON: {str(error)[:300]}") from error
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadRequestError(f"{where} is {_short(first['input'])}: {first['msg']}", where) from error


def _short(value: object) -> str:
    text = json.dumps(value, default=str)  # ASCII: half an emoji could not be sent back
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


async def _capabilities(request: web.Request) -> web.Response:
    lanes = tuple(
        service.Lane(
            device=lane.device,
            name=str(lane.capabilities.get("facts", {}).get("model", "CPU")),
            ready=lane.ready,
            facts=lane.capabilities.get("facts", {}),
        )
        for lane in request.app[JOBS].lanes
    )
    return _json(
        service.Capabilities(
            version=__version__,
            lanes=lanes,
            languages=("cpp", "triton"),
            emulated_languages=("triton",),
            baselines=("eager", "compile"),
            sandbox=sandbox.active(),
        )
    )


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    jobs = request.app[JOBS]
    ready = not jobs.draining and any(lane.ready for lane in jobs.lanes)
    return web.Response(text="ready\n" if ready else "no lane is ready yet\n", status=200 if ready else 503)


async def _metrics(request: web.Request) -> web.Response:
    jobs, metrics = request.app[JOBS], request.app[METRICS]
    metrics.queue.set(jobs.queued)
    metrics.lanes.set(sum(lane.ready for lane in jobs.lanes))
    for report in jobs.uncounted():
        metrics.count(report)
    return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _job(request: web.Request) -> Job:
    job = request.app[JOBS].get(request.match_info["id"])
    if job is None:
        body = service.ErrorBody(error="no such evaluation; it is unknown here or was forgotten, submit it again")
        raise web.HTTPNotFound(text=body.model_dump_json(), content_type="application/json")
    return job


def _json(body: BaseModel, status: int = 200) -> web.Response:
    return web.Response(text=body.model_dump_json(by_alias=True), status=status, content_type="application/json")


def _error(status: int, message: str, field: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    body = service.ErrorBody(error=message, field=field).model_dump_json()
    return web.Response(text=body, status=status, headers=headers, content_type="application/json")
