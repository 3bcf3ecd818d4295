"""What a person sees of a running search: a live table on a terminal, plain lines elsewhere, JSON lines on request."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kernelsearch.search import ports

ROWS = 12
COLOURS = {"correct": "green", "reward_hack": "magenta", "suspicious": "yellow"}


class JsonLines:
    """One event a line on stdout."""

    def __init__(self, clock: ports.Clock) -> None:
        self._clock = clock

    def on(self, event: ports.Event) -> None:
        body = {"event": type(event).__name__, "seconds": round(self._clock.now(), 3), **dataclasses.asdict(event)}
        sys.stdout.write(json.dumps(body, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()


class Plain:
    """A line for everything that a log should keep."""

    def __init__(self, clock: ports.Clock, echo: Callable[[str], None]) -> None:
        self._clock, self._echo = clock, echo

    def on(self, event: ports.Event) -> None:
        text = sentence(event)
        if text:
            self._echo(f"{time.strftime('%H:%M:%S')} {self._clock.now():7.1f} s  {text}")


def sentence(event: ports.Event) -> str:  # noqa: PLR0911 - one a kind of event
    """An event in words; empty for what only a live display shows."""
    match event:
        case ports.Started():
            how = "resumed" if event.resumed else "started"
            return f"search {how}: {event.chains} chain(s), strategy {event.strategy} {event.note}".rstrip()
        case ports.AttemptStarted():
            base = f" of {event.base}" if event.base is not None else ""
            return f"attempt {event.attempt:3} chain {event.chain}  asks: {event.step}{base}"
        case ports.AttemptFinished():
            figure = "" if event.speedup is None else f"  {event.speedup:.3f}x"
            return f"attempt {event.attempt:3} chain {event.chain}  {event.verdict}{figure}  {event.reason[:160]}"
        case ports.AttemptDropped():
            return f"attempt {event.attempt:3} chain {event.chain}  dropped: {event.reason}"
        case ports.BestImproved():
            return f"attempt {event.attempt:3} is the new best: {figure_of(event)}"
        case ports.Trouble():
            retry = "" if event.retry_in is None else f"; again in {event.retry_in:.0f} s"
            return f"trouble with {event.service.value}: {event.message}{retry}"
        case ports.Ended():
            return f"ended: {event.reason}: {event.message}"
    return ""


def figure_of(best: ports.BestImproved) -> str:
    if best.speedup is None or best.ci99 is None:
        return "correct, not timed"
    low, high = best.ci99
    return f"{best.speedup:.3f}x {best.baseline} (99 % interval {low:.3f} to {high:.3f})"


@dataclasses.dataclass
class Row:
    """One attempt in the table."""

    attempt: int
    chain: int
    step: str
    state: str = "asking"
    speedup: str = ""
    tokens: int = 0
    reason: str = ""


class LiveTable:
    """The live table, with a bar to the deadline and the best so far."""

    def __init__(self, title: str, deadline: float, clock: ports.Clock, console: Console) -> None:
        self._title, self._deadline, self._clock = title, deadline, clock
        self._rows: dict[int, Row] = {}
        self._best, self._note = "none yet", ""
        self._bar = Progress(
            TextColumn("to the deadline"), BarColumn(bar_width=40), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("", total=deadline)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def on(self, event: ports.Event) -> None:
        match event:
            case ports.AttemptStarted():
                self._rows[event.attempt] = Row(event.attempt, event.chain, event.step)
            case ports.TokensSoFar() if event.attempt in self._rows:
                self._rows[event.attempt].tokens = event.tokens
            case ports.Verifying() if event.attempt in self._rows:
                self._rows[event.attempt].state = f"verifying ({event.level.value})"
            case ports.AttemptFinished():
                row = self._rows.setdefault(event.attempt, Row(event.attempt, event.chain, event.step))
                row.state, row.reason, row.tokens = event.verdict, event.reason, event.tokens.completion
                row.speedup = "" if event.speedup is None else f"{event.speedup:.3f}x"
            case ports.AttemptDropped():
                self._rows.pop(event.attempt, None)
            case ports.BestImproved():
                self._best = f"attempt {event.attempt}: {figure_of(event)}"
            case ports.Trouble() | ports.Ended() | ports.Started():
                self._note = sentence(event)
        for attempt in sorted(self._rows)[:-ROWS]:
            del self._rows[attempt]

    def _render(self) -> Group:
        table = Table(title=self._title, expand=True)
        for name in ("attempt", "chain", "step", "verdict", "speed-up", "tokens", "what was found"):
            table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=4 if name.startswith("what") else None)
        for row in sorted(self._rows.values(), key=lambda r: r.attempt):
            colour = COLOURS.get(row.state, "default")
            cells = (str(row.attempt), str(row.chain), row.step, f"[{colour}]{row.state}[/]", row.speedup)
            table.add_row(*cells, str(row.tokens), escape(row.reason))
        self._bar.update(self._task, completed=min(self._deadline, self._clock.now()))
        return Group(table, self._bar, f"best so far: {self._best}", escape(self._note))
