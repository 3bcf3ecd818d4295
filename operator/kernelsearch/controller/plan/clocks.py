"""The two clocks of a search, as arithmetic on its status: no timer runs anywhere, so a restart loses nothing.

Start-up runs while model, verifiers and runner become ready; the search clock runs while they work. At most one of
them runs, and neither before acceptance, while suspended, or after completion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from kernelsearch.api.spec import Budget

SILENT_SECONDS = 5
"""What the operator waits beyond deadline and grace for the runner's own word, before it ends the search itself."""
SKEW_SECONDS = 2
"""Times of day are compared across machines; what differs by no more is lost in whole seconds and patience."""


@dataclass(frozen=True)
class Clocks:
    """The clock fields of `status`. Times are UTC; durations are seconds."""

    start: datetime | None = None
    startup_segment: datetime | None = None
    startup_used: int = 0
    segment: datetime | None = None
    deadline: datetime | None = None
    used: int = 0
    completion: datetime | None = None

    @classmethod
    def read(cls, status: Mapping[str, Any]) -> Self:
        return cls(
            start=time(status.get("startTime")),
            startup_segment=time(status.get("startupSegmentStartTime")),
            startup_used=int(status.get("startupUsedSeconds", 0)),
            segment=time(status.get("segmentStartTime")),
            deadline=time(status.get("deadlineTime")),
            used=int(status.get("usedSeconds", 0)),
            completion=time(status.get("completionTime")),
        )

    def to_status(self) -> dict[str, Any]:
        fields = {
            "startTime": text(self.start),
            "startupSegmentStartTime": text(self.startup_segment),
            "startupUsedSeconds": self.startup_used,
            "segmentStartTime": text(self.segment),
            "deadlineTime": text(self.deadline),
            "usedSeconds": self.used,
            "completionTime": text(self.completion),
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def running(self) -> bool:
        """The search clock runs."""
        return self.segment is not None


def accept(clocks: Clocks, now: datetime) -> Clocks:
    """The search is accepted: from now on its spec is fixed."""
    return replace(clocks, start=clocks.start or now)


def wait(clocks: Clocks, now: datetime) -> Clocks:
    """The start-up clock runs: something is not ready yet."""
    return clocks if clocks.startup_segment else replace(clocks, startup_segment=now)


def hold(clocks: Clocks, now: datetime) -> Clocks:
    """The start-up clock stands: the pods are queued, and nobody can say for how long."""
    return replace(clocks, startup_used=startup_seconds(clocks, now), startup_segment=None)


def run(clocks: Clocks, now: datetime, budget: Budget) -> Clocks:
    """The search clock runs, and its deadline follows the budget as it is now."""
    segment = clocks.segment or now
    return replace(
        clocks,
        startup_segment=None,
        startup_used=0,
        segment=segment,
        deadline=segment + timedelta(seconds=max(0, budget.deadline_seconds - clocks.used)),
    )


def suspend(clocks: Clocks, now: datetime) -> Clocks:
    """Both clocks stand. A resumed search gets a fresh start-up clock."""
    return replace(
        clocks, used=used_seconds(clocks, now), segment=None, deadline=None, startup_segment=None, startup_used=0
    )


def complete(clocks: Clocks, now: datetime) -> Clocks:
    """The search is over; how long it ran stays readable."""
    used = used_seconds(clocks, now)
    return replace(clocks, used=used, segment=None, startup_segment=None, completion=clocks.completion or now)


def used_seconds(clocks: Clocks, now: datetime) -> int:
    """The search clock."""
    return clocks.used + _since(clocks.segment, now)


def startup_seconds(clocks: Clocks, now: datetime) -> int:
    """The start-up clock."""
    return clocks.startup_used + _since(clocks.startup_segment, now)


def startup_ends(clocks: Clocks, budget: Budget) -> datetime | None:
    """When start-up has taken too long; None while its clock stands."""
    if clocks.startup_segment is None:
        return None
    return clocks.startup_segment + timedelta(seconds=budget.startup_deadline_seconds - clocks.startup_used)


def patience_ends(clocks: Clocks, budget: Budget) -> datetime | None:
    """When the operator ends a running search without the runner's word."""
    if clocks.deadline is None:
        return None
    return clocks.deadline + timedelta(seconds=budget.grace_period_seconds + SILENT_SECONDS)


def skew(server: datetime, asked: datetime, answered: datetime) -> float:
    """Seconds that our clock is surely behind the server's, or, below 0, ahead of it; 0 when it may be right.

    The server read its clock somewhen between `asked` and `answered`, which are ours, and cut it to whole seconds.
    """
    least, most = (server - answered).total_seconds(), (server - asked).total_seconds() + 1
    return least if least > 0 else min(most, 0.0)


def skew_warning(seconds: float) -> str:
    """Of the runner, whose deadline is the operator's time of day; empty while the clocks agree well enough."""
    if abs(seconds) <= SKEW_SECONDS:
        return ""
    how, then = ("behind", "late") if seconds > 0 else ("ahead of", "early")
    return (
        f"warning: this clock is {abs(seconds):.0f} s {how} the API server's, so the search ends as much too {then}: "
        "mend the time synchronisation of this node"
    )


def _since(start: datetime | None, now: datetime) -> int:
    return 0 if start is None else max(0, int((now - start).total_seconds()))


def time(written: str | None) -> datetime | None:
    """An RFC 3339 time of the API."""
    return datetime.fromisoformat(written).astimezone(UTC) if written else None


def text(moment: datetime | None) -> str | None:
    """As the API writes times: UTC, whole seconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
