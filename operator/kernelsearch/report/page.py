"""A search as one HTML file that stands alone: no script, nothing to load, and nothing in it that could.

What models and candidates wrote is untrusted. The template escapes every value; only what is drawn here from numbers,
or escaped by pygments, is marked safe. A Content-Security-Policy refuses scripts, should an escape ever be missing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers.python import PythonLexer

from kernelsearch.report import best, curve, history
from kernelsearch.report.history import History
from kernelsearch.search import untrusted

LONGEST = 400_000
"""Characters of one text in the page; an endless thought would make it unreadable for any browser."""


def write(found: History, path: Path) -> None:
    """Write the page, whole or not at all. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(render(found), encoding="utf-8", errors="replace")
    fresh.replace(path)


def render(found: History) -> str:
    """The page."""
    formatter = HtmlFormatter(cssclass="code", style="default")
    timed = [(each.seconds, each.speedup) for each in found.attempts if each.speedup is not None]
    attempts, tokens = (_map(found.status.get(name)) for name in ("attempts", "tokens"))
    return _template().render(
        found=found,
        figure=best.figure(found.best.report) if found.best else "no correct kernel",
        infrastructure=attempts.get("infrastructure", 0),
        tokens=tokens,
        unarchived=max(0, int(attempts.get("total", 0)) - len(found.attempts)),
        most=max((count for _, count in found.verdicts), default=1),
        curve=Markup(curve.svg(found.curve, timed, found.lasted)),  # noqa: S704 - drawn from numbers
        code=Markup(_highlighted(found, formatter)),  # noqa: S704 - pygments escapes what it is given
        style=Markup(formatter.get_style_defs(".code")),  # noqa: S704 - pygments' own
        label=history.label,
        bounded=lambda text: untrusted.shortened(untrusted.stripped(text), LONGEST),
        pretty=lambda report: json.dumps(report, indent=1, ensure_ascii=False),
    )


def _highlighted(found: History, formatter: Any) -> str:
    source = untrusted.stripped(found.best.source) if found.best else ""
    return highlight(source, PythonLexer(), formatter) if source else ""


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kernelsearch.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
