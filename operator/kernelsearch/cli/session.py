"""`kernelsearch run -f`: composes manifest, clients, verifier and loop on this machine."""

import asyncio
import json
import platform
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelsearch.api.verifiers import Device
from kernelsearch.cli import display, local, manifest
from kernelsearch.clients.model import Endpoint, ModelClient, Sampling
from kernelsearch.clients.verifier import VerifierClient
from kernelsearch.replay import script, server
from kernelsearch.report import page
from kernelsearch.search import archive, checkpoint, loop, ports
from kernelsearch.search.config import Hardware, SearchConfig
from kernelsearch.search.facts import Outcome
from kernelsearch.search.journal import Journal, JournalBusyError
from kernelverify_api.request import CustomKernel, Language, Options, Problem, TorchOps
from kernelverify_api.service import Capabilities

SOLVED, UNSOLVED, INVALID, INFRASTRUCTURE = 0, 1, 2, 3
READY_S = 240.0
"""For the local verifier to import torch and answer the audit."""


@dataclass(frozen=True)
class Asked:
    """The command line."""

    manifest: Path
    out: Path | None = None
    model_url: str = ""
    model: str = ""
    replay: Path | None = None
    replay_speed: float = 1.0
    verifier_urls: tuple[str, ...] = ()
    config_dir: Path | None = None
    deadline: int | None = None
    as_json: bool = False
    fresh: bool = False


def run(asked: Asked) -> int:
    """The exit code: 0 solved, 1 not, 2 invalid, 3 infrastructure."""
    try:
        search = manifest.load(asked.manifest)
        return asyncio.run(_run(asked, search))
    except InvalidManifestError as error:
        for fault in error.faults:
            click.echo(f"error: {asked.manifest}: {fault}", err=True)
        return INVALID
    except ports.UnusableProblemError as error:
        click.echo(f"error: {asked.manifest}: spec.problem: {error}", err=True)
        return INVALID
    except (JournalBusyError, checkpoint.UnusableCheckpointError) as error:
        click.echo(f"error: {error}", err=True)
        return INVALID
    except (ports.InfrastructureError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        return INFRASTRUCTURE


async def _run(asked: Asked, search: KernelSearch) -> int:
    problem = manifest.problem(search, asked.config_dir)
    endpoint = _endpoint(asked, search)
    _need_linux(asked)
    out = asked.out or Path("runs") / search.metadata.name
    if asked.fresh:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    with Journal(out / "journal.jsonl") as journal:
        kept = await journal.load()
        finished = _finished(out)
        if finished:
            click.echo(f"{out} holds a finished search ({finished}); --fresh starts anew", err=True)
            page.write(out, out / "report.html")
            return SOLVED if _has_best(out) else UNSOLVED
        shutil.copyfile(asked.manifest, out / "search.yaml")
        return await _Session(asked, search, problem, endpoint, out, journal, checkpoint.seconds_used(kept)).run()


class _Session:
    """One process's part of a search."""

    def __init__(
        self,
        asked: Asked,
        search: KernelSearch,
        problem: Problem,
        endpoint: Endpoint,
        out: Path,
        journal: Journal,
        used: float,
    ) -> None:
        self._asked, self._search, self._problem, self._endpoint = asked, search, problem, endpoint
        self._out, self._journal, self._used = out, journal, used
        self._clock = local.MonotonicClock()
        budget = search.spec.budget
        target = budget.target_speedup
        self._live = ports.LiveSpec(
            deadline=float(asked.deadline or budget.deadline_seconds),
            stop=search.spec.stop,
            max_attempts=budget.max_attempts,
            max_tokens=budget.max_tokens,
            target_speedup=float(target) if target else None,
        )
        self._folder = local.Folder(out, self._live)

    async def run(self) -> int:
        async with AsyncExitStack() as stack:
            await self._replay(stack)
            urls = await self._verifiers(stack)
            judge = await stack.enter_async_context(
                VerifierClient(urls, self._problem, self._clock, options=_options(self._search))
            )
            model = await stack.enter_async_context(
                ModelClient(self._endpoint, self._clock, sampling=_sampling(self._search))
            )
            config = await self._config(judge)
            observer = self._observer(stack)
            _stop_on_interrupt(self._folder)
            self._clock.restart(self._used)
            outcome = await loop.run(
                config,
                proposer=model,
                verifier=judge,
                store=self._journal,
                archive=archive.Parts(self._out / "attempts"),
                progress=self._folder,
                clock=self._clock,
                observer=observer,
            )
        return self._conclude(outcome)

    async def _replay(self, stack: AsyncExitStack) -> None:
        """Written answers in place of a model, served from this process."""
        if self._asked.replay is None:
            return
        settings = server.Settings(host="127.0.0.1", port=0, speed=self._asked.replay_speed)
        url = await stack.enter_async_context(server.serving(script.load(self._asked.replay), settings))
        self._endpoint = replace(self._endpoint, url=url)
        self._say(f"{label(self._endpoint.model)}")

    async def _verifiers(self, stack: AsyncExitStack) -> list[str]:
        if self._asked.verifier_urls:
            return list(self._asked.verifier_urls)
        serve = self._search.spec.verifiers.serve
        if serve is None:
            raise InvalidManifestError(
                (Fault("spec.verifiers.poolRef", "names a pool of a cluster; give --verifier-url URL instead"),)
            )
        if serve.device is not Device.CPU:
            raise InvalidManifestError(
                (Fault("spec.verifiers.serve.device", "is cuda; a verifier started here has a CPU lane: write cpu"),)
            )
        self._say("starting a verifier on this machine ...")
        return [await stack.enter_async_context(local.verifier(tell=self._say))]

    async def _config(self, judge: VerifierClient) -> SearchConfig:
        spec = self._search.spec
        self._say("auditing the problem ...")
        until = self._clock.now() + READY_S
        audited = await judge.audit(until)
        degenerate = None
        if not audited.sound:
            first = audited.findings[0]
            degenerate = {"finding": first.kind, "evidence": first.evidence}
            self._say(f"warning: the problem is not sound ({first.kind}: {first.evidence}); results count apart")
        return SearchConfig(
            name=self._search.metadata.name,
            problem=self._problem,
            languages=tuple(Language(each.value) for each in spec.kernel.languages),
            hardware=_hardware(await judge.capabilities(until)),
            model=self._endpoint.model,
            custom_kernel=CustomKernel(spec.kernel.custom_kernel.value.lower()),
            torch_ops=TorchOps(spec.kernel.torch_ops.value.lower()),
            baselines=spec.baselines,
            chains=spec.search.chains,
            strategy=spec.search.strategy.value,
            seed=spec.search.seed,
            initial_prompt=spec.search.initial_prompt,
            degenerate=degenerate,
            grace_seconds=float(spec.budget.grace_period_seconds),
            unavailable_seconds=float(spec.budget.unavailable_seconds),
        )

    def _observer(self, stack: AsyncExitStack) -> ports.Observer:
        if self._asked.as_json:
            return display.JsonLines(self._clock)
        if not sys.stdout.isatty():
            return display.Plain(self._clock, click.echo)
        title = f"{self._search.metadata.name} · {label(self._endpoint.model)}"
        table = display.LiveTable(title, self._live.deadline, self._clock, Console())
        return stack.enter_context(table)

    def _say(self, text: str) -> None:
        click.echo(text, err=self._asked.as_json)

    def _conclude(self, outcome: Outcome) -> int:
        facts = json.loads((self._out / "status.json").read_text(encoding="utf-8"))
        page.keep_best(self._out, facts)
        page.write(self._out, self._out / "report.html")
        if not self._asked.as_json:
            click.echo(page.table(self._out))
            click.echo(f"{outcome.reason.value}: {outcome.message}")
            click.echo(f"model: {label(self._endpoint.model)}")
            click.echo(f"everything is in {self._out}/ (report.html, best/kernel.py, attempts/)")
        if facts.get("best"):
            return SOLVED
        return INFRASTRUCTURE if "Unavailable" in outcome.reason.value else UNSOLVED


def label(model: str) -> str:
    """A replay is called one wherever a model is named."""
    return f"{model} (REPLAY: written answers, no model was asked)" if model.startswith("replay") else model


def _stop_on_interrupt(folder: local.Folder) -> None:
    """The first Ctrl-C ends the search with what was found, the second one at once."""

    def stop() -> None:
        if folder.stopped:
            raise KeyboardInterrupt
        folder.stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _finished(out: Path) -> str:
    try:
        outcome = json.loads((out / "status.json").read_text(encoding="utf-8")).get("outcome", {})
    except (OSError, ValueError):
        return ""
    return str(outcome.get("reason", ""))


def _has_best(out: Path) -> bool:
    return bool(json.loads((out / "status.json").read_text(encoding="utf-8")).get("best"))


def _endpoint(asked: Asked, search: KernelSearch) -> Endpoint:
    model, name = search.spec.model, asked.model or search.spec.model.name
    found = model.endpoint
    if asked.replay is not None:
        return Endpoint(url="http://replay.invalid/v1", model=script.load(asked.replay).label)
    if asked.model_url:
        key = manifest.secret(found.api_key_secret_ref, "spec.model.endpoint.apiKeySecretRef") if found else None
        return Endpoint(url=asked.model_url, model=name, api_key=key)
    if found is None:
        field = "serve" if model.serve else "serverRef"
        raise InvalidManifestError((Fault(f"spec.model.{field}", "needs a cluster; give --model-url URL instead"),))
    ca = found.ca_config_map_ref
    return Endpoint(
        url=found.url,
        model=name,
        api_key=manifest.secret(found.api_key_secret_ref, "spec.model.endpoint.apiKeySecretRef"),
        ca_pem=manifest.config(ca, asked.config_dir, "spec.model.endpoint.caConfigMapRef") if ca else None,
        insecure=found.insecure,
    )


def _need_linux(asked: Asked) -> None:
    if not asked.verifier_urls and platform.system() != "Linux":
        system = platform.system()
        fault = Fault("spec.verifiers.serve", f"needs Linux, this is {system}; give --verifier-url URL")
        raise InvalidManifestError((fault,))


def _options(search: KernelSearch) -> Options:
    spec = search.spec
    return Options(
        custom_kernel=CustomKernel(spec.kernel.custom_kernel.value.lower()),
        torch_ops=TorchOps(spec.kernel.torch_ops.value.lower()),
        baselines=spec.baselines,
    )


def _sampling(search: KernelSearch) -> Sampling:
    asked = search.spec.model.sampling
    return Sampling(temperature=float(asked.temperature), top_p=float(asked.top_p), max_tokens=asked.max_tokens)


def _hardware(found: Capabilities) -> Hardware:
    lane = found.lanes[0] if found.lanes else None
    facts: dict[str, Any] = dict(lane.facts) if lane else {}
    name = lane.name if lane else ""
    return Hardware(lane.device if lane else "cpu", name, facts, found.emulated_languages)
