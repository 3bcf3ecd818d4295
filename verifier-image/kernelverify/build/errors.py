"""The first real errors of a compiler's output, each with its source line: what a model can use, and no more."""

import re

from kernelverify_api.report import BuildMessage

MOST_ERRORS, MOST_TEXT = 5, 4000
_ERROR = re.compile(r"^(?P<file>[^\s:][^:]*):(?:(?P<line>\d+):)?(?:\d+:)? (?:fatal )?error: (?P<text>.*)$")
_LINK = re.compile(r"(undefined reference to .*|cannot find .*|multiple definition of .*)$")


def first(output: str) -> tuple[BuildMessage, ...]:
    """At most five errors; the whole output's end when nothing looks like one."""
    lines = output.splitlines()
    found = [_message(lines, i, m) for i, line in enumerate(lines) if (m := _ERROR.match(line))]
    found += [BuildMessage(file="link", message=m.group(1)[:500]) for line in lines if (m := _LINK.search(line))]
    if not found:
        return (BuildMessage(file="compiler", message=output.strip()[-1000:] or "the compiler failed without a word"),)
    return tuple(_within(found[:MOST_ERRORS]))


def blames_source(output: str) -> bool:
    """Whether an error points into the candidate's own text: then other headers will hardly help."""
    return any((m := _ERROR.match(line)) and "/" not in m["file"] for line in output.splitlines())


def fuller(lean: str, plain: str) -> str:
    """The output to show when both ways failed: torch's own decides, the lean one lists more of the same."""
    return lean if first(lean)[0] == first(plain)[0] else plain


def _message(lines: list[str], index: int, match: re.Match[str]) -> BuildMessage:
    """The message and, where the compiler quotes it, the offending line."""
    quoted = lines[index + 1].split("|", 1) if index + 1 < len(lines) else []
    shown = f"\n{quoted[1].strip()}" if len(quoted) == 2 and quoted[0].strip().isdigit() else ""  # noqa: PLR2004
    line = match["line"]
    file = match["file"].rsplit("/", 1)[-1]
    return BuildMessage(file=file, line=int(line) if line else None, message=(match["text"] + shown)[:1000])


def _within(messages: list[BuildMessage]) -> list[BuildMessage]:
    kept: list[BuildMessage] = []
    used = 0
    for message in messages:
        used += len(message.message)
        if kept and used > MOST_TEXT:
            break
        kept.append(message)
    return kept
