"""`kernelsearch run --cluster NAMESPACE/NAME`: one search in its pod, from its own object to its outcome.

The process is ready once model and verifiers answered and the problem was found sound; then the operator starts the
search clock, and with its deadline the loop begins. Whatever ends this process, the operator makes another one, which
goes on from the checkpoint: so it exits rather than guess.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from kernelsearch.api import validation
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.validation import InvalidManifestError
from kernelsearch.cli import cluster_ports, lines, local, preparation, wiring
from kernelsearch.clients.model import Endpoint, ModelClient
from kernelsearch.clients.verifier import VerifierClient
from kernelsearch.controller.cluster import ApiServer, ClusterError, connect
from kernelsearch.controller.running import kept
from kernelsearch.controller.running.own import GoneError, OwnSearch
from kernelsearch.metrics import RunnerMetrics
from kernelsearch.search import checkpoint, loop, ports, seed
from kernelsearch.search.facts import Reason
from kernelverify_api.request import Problem

DECIDED, USAGE, INFRASTRUCTURE = 0, 2, 3
PORT = 9090
AGAIN_S = 2.0
DISCOVER_S = 3.0
FILES = Path("/var/run/kernelsearch")


@dataclass(frozen=True)
class Place:
    """What the pod's environment says."""

    namespace: str
    name: str
    search_uid: str
    pod_uid: str
    model_url: str
    verifiers: str
    files: Path = FILES
    port: int = PORT

    @classmethod
    def read(cls, target: str, environment: Mapping[str, str]) -> "Place":
        """Raises ValueError, naming what is missing."""
        namespace, slash, name = target.partition("/")
        if not (slash and namespace and name):
            raise ValueError(f"--cluster is {target!r}; write NAMESPACE/NAME")
        wanted = ("SEARCH_UID", "MODEL_URL", "VERIFIER_SERVICE")
        missing = [f"KERNELSEARCH_{each}" for each in wanted if not environment.get(f"KERNELSEARCH_{each}")]
        if missing:
            raise ValueError(f"{', '.join(missing)} not set: this command is for the pods that the operator makes")
        return cls(
            namespace,
            name,
            environment["KERNELSEARCH_SEARCH_UID"],
            environment.get("POD_UID", str(os.getpid())),
            environment["KERNELSEARCH_MODEL_URL"],
            environment["KERNELSEARCH_VERIFIER_SERVICE"],
            Path(environment.get("KERNELSEARCH_FILES", str(FILES))),
            int(environment.get("KERNELSEARCH_PORT", PORT)),
        )


def run(target: str) -> int:
    """The exit code: 0 when it ended by its own decision, 3 when something else ended it."""
    try:
        place = Place.read(target, os.environ)
    except ValueError as error:
        click.echo(f"error: {error}", err=True)
        return USAGE
    try:
        return asyncio.run(_run(place))
    except (GoneError, kept.FencedError) as error:
        click.echo(f"this runner is not needed any more: {error}", err=True)
        return DECIDED
    except (ClusterError, InvalidManifestError, ports.InfrastructureError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        return INFRASTRUCTURE


async def _run(place: Place) -> int:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(connect())
        session = Session(place, server, stack)
        loop_ = asyncio.get_running_loop()
        work = asyncio.create_task(session.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop_.add_signal_handler(number, session.leave, work)
        gone = asyncio.create_task(session.own.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                raise GoneError(f"search {place.namespace}/{place.name} was deleted")
            return work.result()
        except asyncio.CancelledError:
            return INFRASTRUCTURE
        finally:
            gone.cancel()


class Session:
    """This process's part in the search."""

    def __init__(self, place: Place, server: ApiServer, stack: AsyncExitStack) -> None:
        self._place, self._server, self._stack = place, server, stack
        self.own = OwnSearch(server, place.namespace, place.name, place.search_uid)
        self._progress = cluster_ports.Progress(self.own)
        self._registry = CollectorRegistry()
        self._metrics = RunnerMetrics(self._registry)
        self._ready = False
        self._searching = False
        self._idle = local.MonotonicClock()
        self._log = lines.Plain(self._idle, _echo)

    def leave(self, work: asyncio.Task[int]) -> None:
        """SIGTERM: in the search, drop what is in flight and save; before it, there is nothing to save."""
        self._log.say("told to end; the search goes on in another pod")
        self._progress.leave()
        if not self._searching:
            work.cancel()

    async def run(self) -> int:
        await self.own.read()
        await cluster_ports.compare_clocks(self._server, self._log.say)
        following = asyncio.create_task(self.own.follow())
        self._stack.callback(following.cancel)
        await self._serve()
        search = validation.stored(self.own.body)
        place = self._place
        saved = kept.Checkpoints(self._server, place.namespace, place.name, place.search_uid, place.pod_uid)
        store = cluster_ports.Store(saved, place.search_uid, self._log.say)
        try:
            problem = await self._problem(search, store)
            ready = await self._prepare(search, problem)
        except (InvalidManifestError, ports.UnusableProblemError) as error:
            return await self._refuse(error)
        if self.own.status.get("sequence"):
            whole = await kept.best_source(self._server, self._place.namespace, self._place.name)
            store.seed = seed.from_status(self.own.status, problem, self._place.search_uid, whole)
        self._ready = True
        await self.own.until(lambda own: "deadlineTime" in own.status or bool(own.spec.get("stop")))
        return await self._search(search, problem, ready, store)

    async def _problem(self, search: KernelSearch, store: cluster_ports.Store) -> Problem:
        """As it was when the search began; a ConfigMap that was edited since changes nothing."""
        saved = await store.load()
        if saved is not None:
            return checkpoint.from_mapping(saved).problem
        source = search.spec.problem
        if source.inline is not None:
            return wiring.problem(search, source.inline.reference)
        if source.config_map_ref is None:
            raise ports.UnusableProblemError("spec.problem: only inline and configMapRef are read on a cluster")
        file = self._place.files / "problem" / source.config_map_ref.key
        return wiring.problem(search, file.read_text(encoding="utf-8"))

    async def _prepare(self, search: KernelSearch, problem: Problem) -> preparation.Ready:
        """Again and again: model and verifiers may come later than this pod; the operator counts the time."""
        with tempfile.TemporaryDirectory() as folder:
            while True:
                urls = await self._discover()
                try:
                    if urls:
                        audit = Path(folder) / "audit.json"
                        endpoint, token = self._endpoint(search), self._token
                        say = self._log.say
                        return await preparation.prepare(search, problem, endpoint, urls, audit, say, token=token)
                except ports.InfrastructureError as error:
                    self._log.say(f"not ready yet: {error}")
                await asyncio.sleep(AGAIN_S)

    async def _search(
        self, search: KernelSearch, problem: Problem, ready: preparation.Ready, store: cluster_ports.Store
    ) -> int:
        clock = cluster_ports.clock(self.own)
        log = lines.Plain(clock, _echo)
        config = replace(ready.config, uid=self._place.search_uid)
        urls = await self._discover()
        options = wiring.options(search)
        verifier = VerifierClient(urls, problem, clock, options=options, client=search.metadata.name, token=self._token)
        await self._stack.enter_async_context(verifier)
        discovering = asyncio.create_task(self._rediscover(verifier))
        self._stack.callback(discovering.cancel)
        model = ModelClient(self._endpoint(search), clock, sampling=wiring.sampling(search))
        await self._stack.enter_async_context(model)
        self._searching = True
        log.say(f"answers by {ready.model}; judged on {config.hardware.name or config.hardware.device}")
        for note in ready.notes:
            log.say(f"note: {note}")
        outcome = await loop.run(
            config,
            proposer=model,
            verifier=verifier,
            store=store,
            archive=cluster_ports.BestKept(self._server, self.own, wiring.origin(search, problem)),
            progress=self._progress,
            clock=clock,
            observer=cluster_ports.Counting(self._metrics, log),
        )
        log.say(f"{outcome.reason}: {outcome.message}")
        return INFRASTRUCTURE if outcome.reason is Reason.SUSPENDED and not self.own.spec.get("suspend") else DECIDED

    async def _refuse(self, error: Exception) -> int:
        """The object or its problem can never be searched: an outcome, which the operator makes the end."""
        unusable = isinstance(error, ports.UnusableProblemError)
        reason = Reason.PROBLEM_UNSOLVABLE.value if unusable else "InvalidSpec"
        self._log.say(f"{reason}: {error}")
        kept_facts = {name: self.own.status[name] for name in _FACTS if name in self.own.status}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        outcome = {"reason": reason, "message": str(error)[:500], "time": now}
        await self.own.publish({**kept_facts, "outcome": outcome})
        return DECIDED

    # ---- the world around ----

    def _endpoint(self, search: KernelSearch) -> Endpoint:
        given = search.spec.model.endpoint
        key = self._place.files / "model" / "api-key"
        authority = self._place.files / "model-ca" / "ca.crt"
        return Endpoint(
            self._place.model_url,
            search.spec.model.name,
            (lambda: key.read_text(encoding="utf-8").strip()) if key.exists() else None,
            authority.read_text(encoding="utf-8") if authority.exists() else None,
            insecure=bool(given and given.insecure),
        )

    def _token(self) -> str:
        """For verifiers; empty outside a pod."""
        file = self._place.files / "verifier" / "token"
        return file.read_text(encoding="utf-8").strip() if file.exists() else ""

    async def _discover(self) -> list[str]:
        """One URL for each address behind the headless Service."""
        host, _, port = self._place.verifiers.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError:  # no verifier is ready: the name does not resolve
            return []
        addresses = sorted({str(each[4][0]) for each in found})
        return [f"http://{f'[{address}]' if ':' in address else address}:{port}" for address in addresses]

    async def _rediscover(self, verifier: VerifierClient) -> None:
        while True:
            await asyncio.sleep(DISCOVER_S)
            verifier.renew(await self._discover())

    async def _serve(self) -> None:
        """`/healthz` says whether the search clock may start, `/metrics` what happened so far."""

        async def health(_: web.Request) -> web.Response:
            return web.Response(text="ok\n" if self._ready else "preparing\n", status=200 if self._ready else 503)

        async def alive(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def metrics(_: web.Request) -> web.Response:
            headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return web.Response(body=generate_latest(self._registry), headers=headers)

        app = web.Application()
        app.add_routes([web.get("/readyz", health), web.get("/healthz", alive), web.get("/metrics", metrics)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, port=self._place.port).start()


_FACTS = ("sequence", "attempts", "tokens", "best", "firstCorrectSeconds", "curve", "recentAttempts", "problem")


def _echo(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()
