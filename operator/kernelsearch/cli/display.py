"""A search on a terminal: a row a chain, a bar to the deadline, the best so far; finished attempts scroll away above.

`Board` is what is shown, and knows nothing of terminals; `Live` draws it four times a second.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kernelsearch.cli import lines
from kernelsearch.report import table as tables
from kernelsearch.search import ports, untrusted
from kernelsearch.search.population import Population

AROUND = 11
"""Lines of a terminal that are not rows of chains."""
COLUMNS = ("chain", "attempt", "step", "verdict", "speed-up", "tokens", "what was found")
QUIET = "bright_black"
Spoken = ports.AttemptFinished | ports.AttemptDropped | ports.BestImproved | ports.Trouble


@dataclass(frozen=True)
class Row:
    """What one chain does, or did last."""

    attempt: int | None = None
    step: str = ""
    state: str = "waits"
    busy: bool = False
    speedup: float | None = None
    tokens: int = 0
    reason: str = ""


@dataclass
class Board:
    """The state of the display, from events alone."""

    title: str
    deadline: float
    rows: dict[int, Row] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    best: str = "none yet"
    trouble: str = ""

    def recall(self, known: Population) -> None:
        """What an earlier process of this search had found."""
        counts = {each.name: getattr(known.counters, each.name) for each in fields(known.counters)}
        self.verdicts = Counter({name: count for name, count in counts.items() if count and name != "infrastructure"})
        self.tokens = known.tokens.total
        if known.best is not None:
            best = known.best.as_best()
            figure = lines.figure(best.speedup, best.ci99, best.baseline)
            self.best = f"attempt {best.attempt}, {figure}"

    def on(self, event: ports.Event) -> None:
        """Take it in."""
        match event:
            case ports.Started():
                self.rows = {chain: Row() for chain in range(event.chains)}
            case ports.BestImproved():
                self.best = f"attempt {event.attempt}, {lines.figure(event.speedup, event.ci99, event.baseline)}"
            case ports.Trouble():
                self.trouble = lines.sentence(event)
            case ports.Ended():
                self.trouble = ""
            case _:
                self._on_attempt(event)

    def _on_attempt(
        self,
        event: ports.AttemptStarted
        | ports.TokensSoFar
        | ports.Verifying
        | ports.AttemptFinished
        | ports.AttemptDropped,
    ) -> None:
        row = self.rows.get(event.chain, Row())
        match event:
            case ports.AttemptStarted():
                step = event.step if event.base is None else f"{event.step} of {event.base}"
                row = Row(event.attempt, step, "asks", busy=True)
            case ports.TokensSoFar():
                row = replace(row, state="answers", tokens=event.tokens)
                self.trouble = ""
            case ports.Verifying():
                row = replace(row, state=f"verifies ({event.level.value})")
            case ports.AttemptFinished():
                self.verdicts[event.verdict] += 1
                self.tokens += event.tokens.prompt + event.tokens.completion
                row = replace(row, state=event.verdict, busy=False, speedup=event.speedup, reason=event.reason)
                row = replace(row, tokens=event.tokens.completion)
            case ports.AttemptDropped():
                row = replace(row, state="dropped", busy=False, reason=event.reason)
        self.rows[event.chain] = row

    def render(self, now: float, width: int, height: int) -> RenderableType:
        """As it stands at `now` on the search clock."""
        room = max(3, height - AROUND)
        # Chains at work first: with more of them than lines, the others have the least to say.
        shown = sorted(sorted(self.rows, key=lambda chain: not self.rows[chain].busy)[:room])
        hidden = len(self.rows) - len(shown)
        parts = [self._table(shown), Text(f"and {hidden} more chains", style=QUIET)] if hidden else [self._table(shown)]
        return Group(*parts, self._bar(now, width), self._summary(), *self._last_trouble())

    def _table(self, chains: list[int]) -> Table:
        table = Table(title=Text(self.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, expand=True)
        for name in COLUMNS:
            right = name in {"speed-up", "tokens"}
            table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
        table.columns[-1].ratio = 1
        for chain in chains:
            row = self.rows[chain]
            state = Text(row.state, style="cyan") if row.busy else tables.verdict(row.state)
            number = "" if row.attempt is None else str(row.attempt)
            cells = (number, row.step, state, tables.speedup(row.speedup), str(row.tokens or ""))
            table.add_row(str(chain), *cells, Text(untrusted.line(row.reason, 300), style=QUIET))
        return table

    def _bar(self, now: float, width: int) -> Table:
        left = max(0.0, self.deadline - now)
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(self.deadline, 1.0), completed=min(now, self.deadline), width=max(10, width - 40))
        words = f"{_clock(left)} to the deadline" if left else "deadline reached; evaluations in flight end"
        grid.add_row(Text(_clock(now)), bar, Text(words))
        return grid

    def _summary(self) -> Text:
        counts = ", ".join(f"{count} {name}" for name, count in self.verdicts.most_common()) or "no verdict yet"
        best = Text.assemble("best so far: ", (self.best, "bold green" if self.best != "none yet" else ""))
        return Text.assemble(best, "\n", (f"{counts}; {self.tokens} tokens", QUIET))

    def _last_trouble(self) -> list[Text]:
        return [Text(self.trouble, style="yellow")] if self.trouble else []


class Live:
    """The board on a terminal. Satisfies `ports.Observer`."""

    def __init__(self, title: str, deadline: float, clock: ports.Clock, console: Console) -> None:
        self.board = Board(title, deadline)
        self._clock, self._console = clock, console
        self._live = RichLive(get_renderable=self._render, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._live.stop()

    def on(self, event: ports.Event) -> None:
        """See `ports.Observer`."""
        self.board.on(event)
        if isinstance(event, ports.Started):
            self._live.start()
        if isinstance(event, Spoken):
            self._console.print(_spoken(event), highlight=False, overflow="ellipsis", no_wrap=True)

    def say(self, text: str) -> None:
        """Something of the session's own."""
        self._console.print(Text(text, style=QUIET), highlight=False)

    def result(self, facts: Mapping[str, Any], text: str) -> None:  # noqa: ARG002 - the facts are for programs
        """The end of it all."""
        self._live.stop()
        self._console.print(Text.from_ansi(text), highlight=False)

    def _render(self) -> RenderableType:
        return self.board.render(self._clock.now(), self._console.width, self._console.height)


def _spoken(event: Spoken) -> Text:
    text = Text(lines.sentence(event))
    if isinstance(event, ports.AttemptFinished):
        text.highlight_words([event.verdict], style=tables.COLOURS.get(event.verdict, ""))
    elif isinstance(event, ports.BestImproved):
        text.stylize("bold green")
    elif isinstance(event, ports.Trouble):
        text.stylize("yellow")
    return text


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
