"""The HTTP side of the replay model: `/v1/models` and `/v1/chat/completions`, streaming and not.

The model's field reads
`replay:<script>` in every answer, whatever name was asked for, so that no result can be mistaken for a real model's.
"""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from kernelsearch.replay.chooser import Choice, Chooser
from kernelsearch.replay.delivery import Delivery, Request, Text, error_response, limit_of
from kernelsearch.replay.faults import Fault, Kind, Plan
from kernelsearch.replay.script import Script, load

NOTICE = "This is a replay of written answers, not a language model."


@dataclass(frozen=True)
class Settings:
    """How a script is served."""

    host: str = "127.0.0.1"
    port: int = 8001
    """0 takes a free one."""
    speed: float = 1.0
    """Divides all delays of the script's pace."""
    faults: tuple[Fault, ...] = ()
    """Besides those of the script; these come first."""
    api_key: str = ""
    """When set, requests without it get 401."""


def run(
    script: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    speed: float = 1.0,
    faults: Sequence[str] = (),
    api_key: str = "",
    echo: Callable[[str], None] = print,
) -> None:
    """Serve a script until SIGINT or SIGTERM; `echo` gets one line once it listens.

    Raises ScriptError or FaultError for what cannot be used, OSError when the port is taken.
    """
    parsed = tuple(Fault.parse(text) for text in faults)
    settings = Settings(host=host, port=port, speed=speed, faults=parsed, api_key=api_key)
    asyncio.run(_serve_until_told(load(script), settings, echo))


async def _serve_until_told(script: Script, settings: Settings, echo: Callable[[str], None]) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with serving(script, settings) as url:
        echo(f"{script.label} listens on {url} - {NOTICE}")
        await told.wait()


@asynccontextmanager
async def serving(script: Script, settings: Settings) -> AsyncIterator[str]:
    """Serve within this event loop; gives the base URL that an OpenAI client takes."""
    runner = web.AppRunner(application(script, settings), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def application(script: Script, settings: Settings) -> web.Application:
    """The aiohttp application of one script."""
    server = Server(script, settings)
    app = web.Application(client_max_size=16 * 2**20)
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    return app


class Server:
    """The handlers, and the two things that they share: whose turn it is, and what fails."""

    def __init__(self, script: Script, settings: Settings) -> None:
        self._script = script
        self._settings = settings
        self._chooser = Chooser(script)
        self._faults = Plan((*settings.faults, *script.faults))
        self._numbers = itertools.count(1)

    async def health(self, _: web.Request) -> web.Response:
        """Alive; needs no key, as with real servers."""
        return web.json_response({"status": "ok", "model": self._script.label})

    async def models(self, request: web.Request) -> web.Response:
        """The one model that there is."""
        if refusal := self._refused(request):
            return refusal
        model = {"id": self._script.label, "object": "model", "created": 0, "owned_by": "replay"}
        return web.json_response({"object": "list", "data": [{**model, "description": NOTICE}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat request, or fail as planned."""
        if refusal := self._refused(request):
            return refusal
        try:
            asked = Request.read(await request.json())
        except ValueError as error:
            return error_response(400, str(error), "BadRequestError")
        number = next(self._numbers)
        fault = self._faults.strike(number)
        if fault is not None and (failed := await _fail_early(fault)):
            return failed
        return await self._answer(request, asked, number, fault)

    def _refused(self, request: web.Request) -> web.Response | None:
        key = self._settings.api_key
        if not key or request.headers.get("Authorization") == f"Bearer {key}":
            return None
        return error_response(401, "Incorrect API key provided", "AuthenticationError")

    async def _answer(
        self, request: web.Request, asked: Request, number: int, fault: Fault | None
    ) -> web.StreamResponse:
        choice = self._chooser.choose(asked.prompt, asked.conversation)
        text = Text.of(choice.answer, self._script.thought_field, limit_of(asked, fault))
        delivery = Delivery(self._script, self._settings.speed, number, asked, text, fault)
        try:
            response = await (delivery.stream(request) if asked.stream else delivery.whole())
        except BaseException:
            # The client left, the connection broke or the server stops: whichever it is, nobody has the answer.
            self._chooser.give_back(choice)
            raise
        self._settle(choice, delivery)
        return response

    def _settle(self, choice: Choice, delivery: Delivery) -> None:
        if not delivery.complete:
            self._chooser.give_back(choice)


async def _fail_early(fault: Fault) -> web.Response | None:
    if fault.kind is Kind.RATE_LIMIT:
        retry = {"Retry-After": f"{fault.retry_after:g}"}
        return error_response(429, "Too many requests: the replay was told to refuse this one", "RateLimitError", retry)
    if fault.kind is Kind.SERVER_ERROR:
        return error_response(500, "The replay was told to fail this request", "InternalServerError")
    if fault.kind is Kind.HANG:
        await asyncio.Event().wait()
    return None
