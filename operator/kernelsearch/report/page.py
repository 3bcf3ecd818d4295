"""One search's history: a table for the terminal, a page that stands alone, and the best kernel's folder.

Everything that a model or a kernel said is untrusted: the template escapes all of it, and no script is on the page.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers.python import PythonLexer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kernelsearch.search import archive

Record = dict[str, Any]
WIDTH = 140


def attempts(folder: Path) -> list[Record]:
    """Archived attempts, oldest first; one that was archived twice around a kill counts once."""
    by_number = {record["attempt"]: record for record in archive.read(folder / "attempts")}
    return [by_number[number] for number in sorted(by_number)]


def status(folder: Path) -> Record:
    found: Record = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    return found


def table(folder: Path) -> str:
    """The attempts, a line each, and the best."""
    rows = Table(title=str(folder))
    for name in ("attempt", "chain", "step", "verdict", "speed-up", "at", "what was found"):
        rows.add_column(name, overflow="fold")
    for a in attempts(folder):
        figure = "" if a.get("speedup") is None else f"{a['speedup']:.3f}x"
        when = f"{a.get('seconds', 0):.0f} s"
        cells = (str(a["attempt"]), str(a["chain"]), str(a["step"]), str(a["verdict"]), figure, when)
        rows.add_row(*cells, escape(str(a.get("reason", ""))[:160]))
    console = Console(file=io.StringIO(), width=WIDTH)
    console.print(rows)
    console.print(escape(best_line(status(folder))))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def best_line(facts: Mapping[str, Any]) -> str:
    best = facts.get("best")
    if not best:
        return "best: no correct kernel yet"
    if "speedup" not in best:
        return f"best: attempt {best['attempt']}, correct, not timed"
    low, high = best["speedupCI"]
    return (
        f"best: attempt {best['attempt']}, {best['speedup']}x {best['baseline']}, re-verified in a fresh process pair; "
        f"99 % interval {low} to {high}"
    )


def keep_best(folder: Path, facts: Mapping[str, Any]) -> None:
    """`best/kernel.py`, its report, and how to reproduce the figure."""
    best = facts.get("best")
    if not best:
        return
    record = next((a for a in attempts(folder) if a["attempt"] == best["attempt"]), {})
    place = folder / "best"
    place.mkdir(exist_ok=True)
    source = record.get("source") or best.get("source", "")
    (place / "kernel.py").write_text(source, encoding="utf-8")
    report = record.get("champion") or record.get("full") or {}
    (place / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    (place / "REPRODUCE.md").write_text(_reproduce(facts, record), encoding="utf-8")


def _reproduce(facts: Mapping[str, Any], record: Record) -> str:
    model = record.get("answer", {}).get("model", "unknown")
    note = " (a replay: written answers, no model was asked)" if str(model).startswith("replay") else ""
    return (
        f"# Attempt {facts['best']['attempt']}\n\n{best_line(facts)}\n\nWritten by: {model}{note}\n"
        f"Verified on: {facts['best'].get('verifiedOn', 'unknown')}\n\n"
        "Save the reference of `search.yaml` (spec.problem) as `reference.py`, then:\n\n"
        "    kernelverify check kernel.py --reference reference.py --level champion\n"
    )


def write(folder: Path, target: Path) -> None:
    """The page, whole or not at all."""
    facts, records = status(folder), attempts(folder)
    best = facts.get("best") or {}
    record = next((a for a in records if a["attempt"] == best.get("attempt")), {})
    formatter = HtmlFormatter(cssclass="code")
    models = sorted({str(a.get("answer", {}).get("model", "")) for a in records} - {""})
    text = _template().render(
        name=folder.name,
        facts=facts,
        attempts=records,
        best_line=best_line(facts),
        models=models,
        replay=any(m.startswith("replay") for m in models),
        verdicts=Counter(a["verdict"] for a in records).most_common(),
        curve=Markup(curve(facts)),  # noqa: S704 - drawn here from numbers
        code=Markup(highlight(record.get("source") or "", PythonLexer(), formatter)),  # noqa: S704 - pygments escapes
        style=Markup(formatter.get_style_defs(".code")),  # noqa: S704
        pretty=lambda value: json.dumps(value, indent=1, ensure_ascii=False),
    )
    temporary = target.with_name(f".{target.name}.new")
    temporary.write_text(text, encoding="utf-8", errors="replace")
    temporary.replace(target)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kernelsearch.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("search.html.j2")


def curve(facts: Mapping[str, Any]) -> str:
    """Best speed-up over time as inline SVG; empty while there is nothing to draw."""
    points = [(p["seconds"], float(p["bestSpeedup"])) for p in facts.get("curve", ()) if "bestSpeedup" in p]
    if not points:
        return ""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3))
    end = max([points[-1][0], *(a["seconds"] for a in facts.get("recentAttempts", ()))])
    times, values = [t for t, _ in points], [v for _, v in points]
    axes.step([*times, end], [*values, values[-1]], where="post", marker="o")
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="seconds of search", ylabel="best speed-up", ylim=(0, None))
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]
