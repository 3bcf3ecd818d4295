"""What a search left in its folder, read into frozen values: attempts, facts, the best kernel.

Everything is read as a stranger's: a field that is missing or of another type gets a harmless value, because a report
on half a search is worth more than none.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kernelsearch.search import archive, untrusted

REPLAY = "replay"
"""How the name of a model begins that is none: `kernelsearch replay-model` replays written answers."""


class NoHistoryError(Exception):
    """The folder holds no search. The message says what to do."""


def is_replay(model: str) -> bool:
    """Whether these answers were written beforehand."""
    return model.startswith(REPLAY)


def label(model: str) -> str:
    """A model's name for people; a replay says that it is one."""
    name = untrusted.line(model, 200) or "unknown"
    return f"{name} (a replay of written answers, no language model)" if is_replay(model) else name


@dataclass(frozen=True)
class Attempt:
    """One archived attempt."""

    number: int
    chain: int
    step: str
    verdict: str
    reason: str
    speedup: float | None
    confirmed: bool
    best: bool
    """Whether it became the best."""
    began: float
    seconds: float
    base: int | None = None
    idea: str = ""
    language: str = ""
    source: str = ""
    prompt: str = ""
    thought: str = ""
    answer: str = ""
    model: str = ""
    tokens: int = 0
    """Completion tokens."""
    full: Mapping[str, Any] = field(default_factory=dict)
    champion: Mapping[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> Mapping[str, Any]:
        """The report that counts."""
        return self.champion or self.full


@dataclass(frozen=True)
class History:
    """One search."""

    name: str
    folder: Path
    attempts: tuple[Attempt, ...]
    status: Mapping[str, Any]
    """The facts as last published; empty when none were."""

    @cached_property
    def best(self) -> Attempt | None:
        """The best kernel's attempt, where the archive has it."""
        number = _map(self.status.get("best")).get("attempt")
        named = next((each for each in self.attempts if each.number == number), None)
        return named or next((each for each in reversed(self.attempts) if each.best), None)

    @property
    def models(self) -> tuple[str, ...]:
        """Names that the answers came under."""
        return tuple(sorted({each.model for each in self.attempts if each.model}))

    @property
    def replay(self) -> bool:
        """Whether any answer was written beforehand."""
        return any(map(is_replay, self.models))

    @property
    def verdicts(self) -> list[tuple[str, int]]:
        """Attempts by verdict, the most frequent first."""
        return Counter(each.verdict for each in self.attempts).most_common()

    @property
    def outcome(self) -> str:
        """Why it ended, in a sentence; empty while it has not."""
        outcome = _map(self.status.get("outcome"))
        return f"{outcome.get('reason')}: {outcome.get('message')}" if outcome else ""

    @property
    def unsound(self) -> str:
        """What the audit found wrong with the problem; empty for a sound one."""
        found = _map(_map(self.status.get("problem")).get("degenerate"))
        return f"{found.get('finding')} ({found.get('criterion')}): {found.get('evidence')}" if found else ""

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Seconds and best speed-up from then on; only figures that were re-verified."""
        if points := _list(self.status.get("curve")):
            return [(_number(p.get("seconds")), _number(p["bestSpeedup"])) for p in points if p.get("bestSpeedup")]
        return [(each.seconds, each.speedup) for each in self.attempts if each.best and each.confirmed and each.speedup]

    @property
    def lasted(self) -> float:
        """Seconds until the last verdict."""
        return max((each.seconds for each in self.attempts), default=0.0)


def read(folder: Path) -> History:
    """Raises NoHistoryError."""
    by_number = {each.number: each for each in map(_attempt, archive.read(folder / "attempts"))}
    status = _status(folder / "status.json")
    if not by_number and not status:
        raise NoHistoryError(f"{folder} holds no search: neither attempts/ nor status.json; give the --out of a run")
    name = str(_map(status.get("problem")).get("name") or folder.resolve().name)
    return History(name, folder, tuple(by_number[number] for number in sorted(by_number)), status)


def _status(path: Path) -> Mapping[str, Any]:
    try:
        return _map(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _attempt(record: Mapping[str, Any]) -> Attempt:
    answer = _map(record.get("answer"))
    speedup = record.get("speedup")
    return Attempt(
        number=int(_number(record.get("attempt"))),
        chain=int(_number(record.get("chain"))),
        step=_text(record.get("step")),
        verdict=_text(record.get("verdict")),
        reason=_text(record.get("reason")),
        speedup=None if speedup is None else _number(speedup),
        confirmed=record.get("confirmed") is True,
        best=record.get("best") is True,
        began=_number(record.get("began")),
        seconds=_number(record.get("seconds")),
        base=record["base"] if isinstance(record.get("base"), int) else None,
        idea=_text(record.get("idea")),
        language=_text(record.get("language")),
        source=_text(record.get("source")),
        prompt=_text(record.get("prompt")),
        thought=_text(answer.get("reasoning")),
        answer=_text(answer.get("content")),
        model=_text(answer.get("model")),
        tokens=int(_number(_map(answer.get("tokens")).get("completion"))),
        full=_map(record.get("full")),
        champion=_map(record.get("champion")),
    )


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
