"""`kernelsearch run -f`: one search on this machine, from its manifest to its last line.

In this order, so that what is wrong with the manifest costs no time: read the manifest, find substitutes for what only
a cluster has, lock the folder, start a verifier, ask whether the problem is sound and who the model is, run the loop.
The search clock runs in the loop only.
"""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import click
from rich.console import Console

from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelsearch.cli import display, ending, lines, local, plan, preparation, wiring
from kernelsearch.cli.folder import (
    BestKept,
    Folder,
    FolderBusyError,
    FolderUnusableError,
    KeptClock,
    StatusFile,
    keep_best,
    seconds_kept,
    write_whole,
)
from kernelsearch.cli.interrupt import Interrupt
from kernelsearch.cli.plan import Asked, Plan
from kernelsearch.cli.preparation import Ready
from kernelsearch.clients.model import Endpoint, ModelClient
from kernelsearch.clients.verifier import VerifierClient
from kernelsearch.replay import server
from kernelsearch.report import history, page, table
from kernelsearch.search import checkpoint, loop, ports, verdict
from kernelsearch.search.checkpoint import Checkpoint, UnusableCheckpointError
from kernelsearch.search.facts import Outcome
from kernelsearch.search.journal import Journal, JournalBusyError

USERS = (
    ports.UnusableProblemError,
    UnusableCheckpointError,
    FolderBusyError,
    FolderUnusableError,
    JournalBusyError,
)
"""What only the user can mend."""


class Screen(ports.Observer, Protocol):
    """Where a search is shown."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *details: object) -> None: ...
    def say(self, text: str) -> None:
        """Something of the session's own."""

    def result(self, facts: Mapping[str, Any], text: str) -> None:
        """The end of it all: facts for programs, text for people."""


def run(asked: Asked) -> int:
    """Run or resume a search; the exit code."""
    try:
        settled = plan.settle(asked)
        with Folder(asked.out or Path("runs") / settled.name) as folder:
            aside = folder.set_aside() if asked.fresh else None
            return asyncio.run(Session(asked, settled, folder).run(aside))
    except InvalidManifestError as error:
        return _refused(ending.INVALID, *(f"{asked.path}: {fault}" for fault in error.faults))
    except USERS as error:
        return _refused(ending.INVALID, _explained(asked, error))
    except (ports.InfrastructureError, OSError) as error:
        return _refused(ending.INFRASTRUCTURE, str(error))
    except asyncio.CancelledError:
        return _refused(ending.INTERRUPTED, "interrupted; the same command goes on with what the journal holds")


def _explained(asked: Asked, error: Exception) -> str:
    match error:
        case ports.UnusableProblemError():
            # The verifier's name for it is `problem.source:LINE`.
            words = re.sub(r"^problem\.source(?::(\d+))?: ", _of_the_reference, str(error))
            return f"{asked.path}: spec.problem: {words}"
        case UnusableCheckpointError():
            return f"{error} (--fresh moves it aside and starts anew)"
        case _:
            return str(error)


def _of_the_reference(match: re.Match[str]) -> str:
    return f"line {match[1]} of the reference: " if match[1] else "the reference: "


def _refused(code: int, *messages: str) -> int:
    for message in messages:
        click.echo(f"error: {message}", err=True)
    return code


class Session:
    """One process's part in a search."""

    def __init__(self, asked: Asked, settled: Plan, folder: Folder) -> None:
        self._asked, self._plan, self._folder = asked, settled, folder

    async def run(self, aside: Path | None) -> int:
        """The exit code."""
        with Journal(self._folder.journal) as journal:
            state = await self._kept(journal)
            clock = local.MonotonicClock(max(state.seconds, seconds_kept(self._folder.clock)) if state else 0.0)
            with self._screen(clock) as screen, Interrupt(screen.say) as interrupt:
                if aside is not None:
                    screen.say(f"the earlier search is in {aside}")
                if state is not None and (why := ending.over(state, self._plan.budget)):
                    screen.say(f"this search is finished ({why}); give --fresh to start anew, or raise its budget")
                    return self._conclude(screen, state, state.outcome)
                outcome = await self._search(journal, state, clock, screen, interrupt)
                return self._conclude(screen, await self._kept(journal), outcome)

    async def _kept(self, journal: Journal) -> Checkpoint | None:
        """Where the search in the folder stands. Raises UnusableCheckpointError for another one."""
        kept = await journal.load()
        if kept is None:
            return None
        state = checkpoint.from_mapping(kept)
        checkpoint.same_search(state, "", self._plan.problem)
        return state

    def _screen(self, clock: ports.Clock) -> Screen:
        if self._asked.as_json:
            return lines.JsonLines(clock, _echo)
        console = Console()
        if not sys.stdout.isatty() or console.is_dumb_terminal:
            return lines.Plain(clock, _echo)
        return display.Live(self._plan.name, self._plan.budget.deadline, clock, console)

    async def _search(
        self,
        journal: Journal,
        state: Checkpoint | None,
        clock: local.MonotonicClock,
        screen: Screen,
        interrupt: Interrupt,
    ) -> Outcome:
        settled, folder = self._plan, self._folder
        write_whole(folder.manifest, settled.text)
        self._keep_best(state)
        async with AsyncExitStack() as stack:
            urls = settled.verifier_urls or (await self._own_verifier(stack, screen),)
            endpoint = await self._endpoint(stack)
            ready = await preparation.prepare(settled.search, settled.problem, endpoint, urls, folder.audit, screen.say)
            self._introduce(ready, state, screen)
            status = StatusFile(folder.status, settled.budget, KeptClock(folder.clock, clock))
            clock.start()
            interrupt.ends_by(status.stop)
            options = wiring.options(settled.search)
            sampling = wiring.sampling(settled.search)
            return await loop.run(
                ready.config,
                proposer=await stack.enter_async_context(ModelClient(endpoint, clock, sampling=sampling)),
                verifier=await stack.enter_async_context(
                    VerifierClient(urls, settled.problem, clock, options=options, client=settled.name)
                ),
                store=journal,
                archive=BestKept(folder, settled.origin),
                progress=status,
                clock=clock,
                observer=screen,
            )

    async def _endpoint(self, stack: AsyncExitStack) -> Endpoint:
        """The model's; a replay is served from this process."""
        if self._plan.script is None:
            return self._plan.endpoint
        settings = server.Settings(port=0, speed=self._asked.replay_speed)
        url = await stack.enter_async_context(server.serving(self._plan.script, settings))
        return replace(self._plan.endpoint, url=url)

    async def _own_verifier(self, stack: AsyncExitStack, screen: Screen) -> str:
        serve = self._plan.search.spec.verifiers.serve
        if serve is None:
            raise AssertionError("a poolRef without --verifier-url was refused before")
        screen.say(f"starting a verifier ({serve.device.value}) on this machine ...")
        running = local.verifier(serve.device.value, self._folder.verifier_log, screen.say)
        try:
            return await stack.enter_async_context(running)
        except local.VerifierUsageError as error:
            message = f"is {serve.device.value}, and the verifier of this machine refuses: {error}"
            raise InvalidManifestError(Fault("spec.verifiers.serve.device", message)) from error

    def _introduce(self, ready: Ready, state: Checkpoint | None, screen: Screen) -> None:
        device = ready.config.hardware
        screen.say(f"answers by {ready.model}; judged on {device.name or device.device} ({device.device})")
        for note in ready.notes:
            screen.say(f"note: {note}")
        if isinstance(screen, display.Live):
            screen.board.title = f"{self._plan.name} · {ready.model}"
            if state is not None:
                screen.board.recall(state.population)

    def _keep_best(self, state: Checkpoint | None) -> None:
        """A kill between checkpoint and archive may have left the folder of the best behind."""
        if state is not None and state.population.best is not None:
            keep_best(self._folder, self._plan.origin, verdict.recalled(state.population.best))

    def _conclude(self, screen: Screen, state: Checkpoint | None, outcome: Outcome | None) -> int:
        found = state is not None and state.population.best is not None
        code = ending.exit_code(outcome, found=found)
        try:
            self._keep_best(state)
            record = history.read(self._folder.path)
            page.write(record, self._folder.page)
        except (ports.InfrastructureError, OSError, history.NoHistoryError) as error:
            screen.say(f"the results could not all be written: {error}")
            return code
        text = table.text(record, color=sys.stdout.isatty())
        best = "best/kernel.py, best/REPRODUCE.md, " if found else ""
        where = f"everything is in {self._folder.path}/: report.html, {best}attempts/"
        facts = {"exitCode": code, "folder": str(self._folder.path), "models": record.models, "replay": record.replay}
        screen.result({**facts, "status": record.status}, f"{text}\n{where}")
        return code


def _echo(text: str) -> None:
    """A line on stdout. A reader that left (`| head`) does not end the search."""
    try:
        click.echo(text)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the process ends
