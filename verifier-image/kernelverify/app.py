"""The HTTP service: thin handlers over `jobs`. Answers health and cancel while a referee hangs."""

import asyncio
import json
import signal
from contextlib import suppress
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from kernelverify import __version__, auth, sandbox
from kernelverify.jobs import FullError, Job, Jobs, LaneError, ProblemError
from kernelverify.metrics import Metrics
from kernelverify.settings import Settings
from kernelverify_api import service
from kernelverify_api.request import Audit, Evaluation

MOST_BODY = 2 << 20
MOST_WAIT_S = 60.0
RETRY_S = 5
JOBS = web.AppKey("jobs", Jobs)
METRICS = web.AppKey("metrics", Metrics)
GUARD: web.AppKey[auth.Guard | None] = web.AppKey("guard")
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
"""For the kubelet and Prometheus, which have no token of ours."""


async def serve(settings: Settings, host: str, port: int, guard: auth.Guard | None = None) -> None:
    """Until SIGTERM or Ctrl-C; says where it listens as its first line on stdout."""
    jobs = Jobs(settings)
    await jobs.start()
    runner = web.AppRunner(make(jobs, guard), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = site._server.sockets[0].getsockname()[1] if site._server else port  # type: ignore[attr-defined]  # noqa: SLF001
    print(f"listening on http://{host}:{bound}", flush=True)  # noqa: T201 - clients that start a verifier read it
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await jobs.close()
    await runner.cleanup()


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
    """Every failure as an ErrorBody that names the field and the remedy."""
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _error(422, f"{where}: {first['msg']}", where)
    except json.JSONDecodeError as error:
        return _error(400, f"the body is no JSON: {error}")
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
    asked = Evaluation.model_validate(await request.json())
    if "client" in request:
        asked = asked.model_copy(update={"client": request["client"]})
    job = await jobs.submit(asked)
    return _json(service.Ticket(id=job.id, position=jobs.position(job)), status=202)


async def _state(request: web.Request) -> web.Response:
    job = _job(request)
    wait = min(MOST_WAIT_S, max(0.0, float(request.query.get("wait", "0"))))
    if wait and not job.finished:
        await job.wait(wait)
    return _json(_described(request.app[JOBS], job))


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
    report = await request.app[JOBS].audit(Audit.model_validate(await request.json()))
    return _json(service.AuditState(report=report))


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
