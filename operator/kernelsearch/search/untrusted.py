"""Text that a candidate or a model wrote, made fit for a prompt: bounded, stripped, fenced. Pure.

A candidate controls its exception messages, its log, its source. Quoted raw, it could close our fence and speak to the
model in our voice; a lone surrogate or a control character could make a later write fail.
"""

import re
import unicodedata

_FENCES = re.compile(r"`{3,}|~{3,}")
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
"""Controls, formats, surrogates, unassigned, and separators that some readers take for line ends."""


def stripped(text: str) -> str:
    """Without control, format (bidirectional marks) and surrogate characters; line ends become plain ones."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    # Nearly every line is printable as it is, and Python sees that ten times faster than we do.
    return "\n".join(line if line.isprintable() else _printable(line) for line in lines)


def _printable(line: str) -> str:
    return "".join(sign for sign in line if sign == "\t" or unicodedata.category(sign) not in _UNPRINTABLE)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, from the beginning; says how much is left out."""
    if len(text) <= limit:
        return text
    note = f"\n[{len(text)} characters, the rest is left out]"
    return text[: max(0, limit - len(note))] + note


def line(text: str, limit: int = 200) -> str:
    """In one line, without backticks: fit to stand inside a sentence."""
    flat = " ".join(stripped(text).replace("`", "'").split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def quote(text: str, limit: int = 2000) -> str:
    """As a fenced block whose text cannot close the fence."""
    inside = shortened(_FENCES.sub("'''", stripped(text)).strip("\n"), limit)
    return f"```text\n{inside}\n```"


def code(source: str, limit: int, language: str = "python") -> str:
    """A source in a fence that is longer than any inside it: code is quoted unchanged but for control characters."""
    inside = shortened(stripped(source).strip("\n"), limit)
    longest = max((len(run) for run in re.findall("`+", inside)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{inside}\n{fence}"
