"""A search as lines: sentences with a time stamp for a log, or JSON for a program."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Self

from kernelsearch.search import ports, untrusted

TOKENS_EVERY_SECONDS = 2.0
"""Between two `tokens_so_far` of one attempt in JSON; the model says it hundreds of times a second."""

Echo = Callable[[str], None]


class _Lines:
    """Needs no tidying up."""

    def __init__(self, clock: ports.Clock, echo: Echo) -> None:
        self._clock, self._echo = clock, echo

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        pass


class Plain(_Lines):
    """A line for everything that a log should keep. Satisfies `ports.Observer`."""

    def on(self, event: ports.Event) -> None:
        """See `ports.Observer`."""
        if text := sentence(event):
            self.say(text)

    def say(self, text: str) -> None:
        """Something of the session's own."""
        self._echo(f"{datetime.now(UTC).astimezone():%H:%M:%S} {self._clock.now():7.1f} s  {text}")

    def result(self, facts: Mapping[str, Any], text: str) -> None:  # noqa: ARG002 - the facts are for programs
        """The end of it all."""
        self._echo(text)


class JsonLines(_Lines):
    """One JSON object a line. Satisfies `ports.Observer`.

    Each has `event`, `time` (RFC 3339) and `seconds` (search clock); the rest are the fields of the event in `ports`.
    `note` holds a `message`; `result`, the last line, holds the exit code and the last facts.
    """

    def __init__(self, clock: ports.Clock, echo: Echo) -> None:
        super().__init__(clock, echo)
        self._heard: dict[int, float] = {}

    def on(self, event: ports.Event) -> None:
        """See `ports.Observer`."""
        if not isinstance(event, ports.TokensSoFar) or self._is_due(event.attempt):
            self._write(_snake(type(event).__name__), asdict(event))

    def say(self, text: str) -> None:
        """Something of the session's own."""
        self._write("note", {"message": text})

    def result(self, facts: Mapping[str, Any], text: str) -> None:  # noqa: ARG002 - the text is for people
        """The end of it all."""
        self._write("result", facts)

    def _is_due(self, attempt: int) -> bool:
        now = self._clock.now()
        if now - self._heard.get(attempt, -TOKENS_EVERY_SECONDS) < TOKENS_EVERY_SECONDS:
            return False
        self._heard[attempt] = now
        return True

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        seconds = round(self._clock.now(), 3)
        own = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "seconds": seconds}
        took = {"took": fields["seconds"]} if "seconds" in fields else {}
        self._echo(json.dumps({**fields, **took, **own}, default=str))


def sentence(event: ports.Event) -> str:
    """An event in words; empty for what only a live display shows. One line, fit for a terminal."""
    return untrusted.line(_words(event), 400)


def _words(event: ports.Event) -> str:
    match event:
        case ports.Started():
            how = "goes on" if event.resumed else "begins"
            chains = f"{event.chains} chain{'s' if event.chains > 1 else ''}"
            return f"the search {how}: {chains}, strategy {event.strategy}" + (f" ({event.note})" if event.note else "")
        case ports.AttemptStarted() | ports.AttemptFinished() | ports.AttemptDropped() | ports.BestImproved():
            return f"attempt {event.attempt} (chain {event.chain}): {_of_attempt(event)}"
        case ports.Trouble():
            return _trouble(event)
        case ports.Ended():
            return f"ended, {event.reason}: {event.message}"
        case _:
            return ""


def _of_attempt(
    event: ports.AttemptStarted | ports.AttemptFinished | ports.AttemptDropped | ports.BestImproved,
) -> str:
    match event:
        case ports.AttemptStarted():
            base = f" of {event.base}" if event.base is not None else ""
            return f"asks for {event.step}{base}" + (f", {event.idea}" if event.idea else "")
        case ports.AttemptFinished():
            return _finished(event)
        case ports.AttemptDropped():
            return f"dropped: {event.reason}"
        case ports.BestImproved():
            return f"is the best so far, {figure(event.speedup, event.ci99, event.baseline)}"


def _finished(event: ports.AttemptFinished) -> str:
    """The verdict's own summary often begins with the verdict, and holds the figure: each is said once."""
    reason = event.reason.removeprefix(f"{event.verdict}, ")
    times = "" if event.speedup is None else f"{event.speedup:.3f}x"
    figure = f" {times}" if times and times not in reason else ""
    return f"{event.verdict}{figure} after {event.seconds:.1f} s: {reason}"


def _trouble(event: ports.Trouble) -> str:
    retry = "" if event.retry_in is None else f" (again in {event.retry_in:.0f} s)"
    return f"trouble with the {event.service.value}: {event.message}{retry}"


def figure(speedup: float | None, ci99: tuple[float, float] | None, baseline: str) -> str:
    """`1.234x eager (99 % interval 1.200 to 1.260)`."""
    if speedup is None or ci99 is None:
        return "right, not timed"
    return f"{speedup:.3f}x {baseline} (99 % interval {ci99[0]:.3f} to {ci99[1]:.3f})"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
