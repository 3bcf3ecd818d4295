"""A search in a terminal: what it was, its attempts, its best kernel."""

import io

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kernelsearch.report import best, history
from kernelsearch.report.history import Attempt, History
from kernelsearch.search import untrusted

WIDTH = 120
COLOURS = {
    "correct": "green",
    "incorrect": "red",
    "compile_error": "red",
    "runtime_error": "red",
    "timeout": "red",
    "reward_hack": "magenta",
    "suspicious": "yellow",
}
COLUMNS = ("attempt", "chain", "step", "verdict", "speed-up", "at", "tokens", "what was found")


def text(found: History, *, color: bool = False, width: int = WIDTH) -> str:
    """The whole report."""
    console = Console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    console.print(Group(*_head(found), attempts(found), *_foot(found)), highlight=False)
    written = console.file
    return written.getvalue().rstrip("\n") if isinstance(written, io.StringIO) else ""


def attempts(found: History) -> Table:
    """A line each."""
    table = Table(pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in {"speed-up", "at", "tokens"} else "left", overflow="fold")
    for each in found.attempts:
        table.add_row(*_row(each), style="bold" if each is found.best else "")
    return table


def verdict(name: str) -> Text:
    """A verdict in its colour."""
    return Text(name, style=COLOURS.get(name, ""))


def speedup(value: float | None) -> str:
    """`1.234x`."""
    return "" if value is None else f"{value:.3f}x"


def _row(each: Attempt) -> tuple[Text, ...]:
    step = f"{each.step} of {each.base}" if each.base is not None else each.step
    return (
        Text(str(each.number)),
        Text(str(each.chain)),
        Text(step),
        verdict(each.verdict),
        Text(speedup(each.speedup)),
        Text(f"{each.seconds:.0f} s"),
        Text(str(each.tokens)),
        Text(untrusted.line(each.reason, 160)),
    )


def _head(found: History) -> list[Text]:
    lines = [Text(found.name, style="bold")]
    if found.models:
        lines.append(Text("answers by " + ", ".join(map(history.label, found.models))))
    if found.replay:
        lines.append(Text("REPLAY: the answers were written beforehand; no language model was asked", style="yellow"))
    if found.unsound:
        lines.append(Text(f"UNSOUND PROBLEM: {untrusted.line(found.unsound, 300)}", style="yellow"))
    return lines


def _foot(found: History) -> list[Text]:
    lines = [Text("verdicts: " + (", ".join(f"{count} {name}" for name, count in found.verdicts) or "none yet"))]
    if found.curve:
        lines.append(Text("best over time: " + " → ".join(f"{value:.3f}x at {at:.0f} s" for at, value in found.curve)))
    if found.best is None:
        lines.append(Text("best: no correct kernel"))
    else:
        lines.append(Text(f"best: attempt {found.best.number}, {best.figure(found.best.report)}", style="green"))
    if found.outcome:
        lines.append(Text(untrusted.line(found.outcome, 500)))
    return lines
