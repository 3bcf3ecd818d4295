"""A real verifier behind a door where a test sees what is asked and hurts the verifier at the stage that it chooses.

`kernelverify serve` has no list of its evaluations, so their ids are read from the tickets that pass the door. What
passes is not changed; while the verifier is away, the door drops the connection as a dead one's socket would.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from small_search import below, parent, stopped

LOOK_SECONDS = 0.02

Moment = tuple[str, ...]
"""Stages of one evaluation, in order: the moment is when it is in the last of them."""


class Verifier:
    """`kernelverify serve`, on a port that it keeps when it is started again."""

    def __init__(self) -> None:
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "kernelverify.cli", "serve", "--port", port]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        self.url = (await self._process.stdout.readline()).decode().split()[-1]

    async def kill(self) -> list[int]:
        """At once, as a node that fails does; the numbers of what it had started."""
        started = list(below(self._process.pid))
        self._process.kill()
        await self._process.communicate()
        return started

    async def kill_referee(self) -> list[int]:
        """Its number, and those of what it had started."""
        # a child of the referee's own looks like it until it has become another program
        (pid,) = (each for each in self._like("kernelverify.host --fd") if parent(each) == self._process.pid)
        started = list(below(pid))
        os.kill(pid, signal.SIGKILL)
        return [pid, *started]

    async def end(self) -> None:
        """In order."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.communicate()

    async def at_work(self, stage: str) -> None:
        """Until what this stage is for goes on: a compiler runs, a baseline is stopped for the candidate's turn."""
        while not self._seen(stage):  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(LOOK_SECONDS)

    def _seen(self, stage: str) -> bool:
        match stage:
            case "building":
                return bool(self._like("cc1plus"))
            case "timing":
                return any(map(stopped, self._like("kernelverify.host.baseline")))
            case _:
                return True

    def _like(self, words: str) -> list[int]:
        return [pid for pid, line in below(self._process.pid).items() if words in line]


@dataclass(frozen=True)
class Submission:
    """An evaluation that the verifier accepted."""

    id: str
    key: str
    level: str


class Door:
    """Passes requests on, and carries out `hurt` once at each moment of the plan: by level, one moment a submission."""

    def __init__(
        self, verifier: Verifier, plan: Mapping[str, list[Moment]], hurt: Callable[[], Awaitable[Any]]
    ) -> None:
        self.submissions: list[Submission] = []
        self.hurt: dict[Moment, Submission] = {}
        """What was at each moment when the verifier was hurt."""
        self.url = ""
        self._verifier, self._hurt = verifier, hurt
        self._plan: dict[str, Iterator[Moment]] = {level: iter(moments) for level, moments in plan.items()}
        self._due: dict[str, Moment | None] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._server, self._session = TestServer(app), aiohttp.ClientSession()
        await self._server.start_server(shutdown_timeout=0.1)
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watching:
            task.cancel()
        ended = await asyncio.gather(*self._watching, return_exceptions=True)
        await self._server.close()
        await self._session.close()
        assert [error for error in ended if isinstance(error, Exception)] == []

    async def state(self, submission: Submission) -> dict[str, Any]:
        async with self._session.get(f"{self._verifier.url}/v1/evaluations/{submission.id}") as answer:
            return await answer.json()

    async def _pass(self, request: web.Request) -> web.Response:
        body, url = await request.read(), f"{self._verifier.url}{request.path_qs}"
        try:
            async with self._session.request(request.method, url, data=body, headers=_content(request)) as answer:
                text = await answer.read()
        except aiohttp.ClientError:
            request.transport.abort()
            return web.Response()  # nobody reads it any more
        if (request.method, request.path, answer.status) == ("POST", "/v1/evaluations", 202):
            self._note(json.loads(body), json.loads(text))
        return web.Response(status=answer.status, body=text, headers=_content(answer))

    def _note(self, asked: Mapping[str, Any], ticket: Mapping[str, Any]) -> None:
        key, level = asked["idempotency_key"], asked["options"]["level"]
        submission = Submission(ticket["id"], key, level)
        self.submissions.append(submission)
        if key not in self._due:
            self._due[key] = next(self._plan.get(level, iter(())), None)
        if moment := self._due[key]:
            task = asyncio.create_task(self._watch(submission, moment))
            self._watching.add(task)

    async def _watch(self, submission: Submission, moment: Moment) -> None:
        left = list(moment)
        async for stage in self._stages(submission):
            if stage == left[0]:
                left.pop(0)
            if not left:
                break
        else:
            return
        await self._verifier.at_work(stage)
        self._due[submission.key] = None
        self.hurt[moment] = submission
        await self._hurt()

    async def _stages(self, submission: Submission) -> AsyncIterator[str]:
        """As they come; ends early with the verifier."""
        url = f"{self._verifier.url}/v1/evaluations/{submission.id}/events"
        with suppress(aiohttp.ClientError):
            async with self._session.get(url, timeout=aiohttp.ClientTimeout()) as answer:
                async for line in answer.content:
                    if line.startswith(b"data: ") and not line.startswith(b"data: {"):
                        yield line.decode().split()[1]


def _content(message: web.Request | aiohttp.ClientResponse) -> dict[str, str]:
    return {"Content-Type": message.headers["Content-Type"]} if "Content-Type" in message.headers else {}


@asynccontextmanager
async def serving() -> AsyncIterator[Verifier]:
    """A verifier that runs until the end of the block."""
    verifier = Verifier()
    await verifier.start()
    try:
        yield verifier
    finally:
        await verifier.end()
