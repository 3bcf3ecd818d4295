"""The loop's ports over the runner's own search on a cluster: only a translation of the controller's words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kernelsearch.cli.local import MonotonicClock
from kernelsearch.controller.cluster import ApiServer, ClusterError
from kernelsearch.controller.plan import clocks
from kernelsearch.controller.running import kept
from kernelsearch.controller.running.own import OwnSearch
from kernelsearch.metrics import RunnerMetrics
from kernelsearch.report import best
from kernelsearch.search import checkpoint, ports
from kernelsearch.search.ledger import STRIDE
from kernelsearch.search.ports import InfrastructureError, LiveSpec


@contextmanager
def _as_infrastructure() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        raise InfrastructureError(str(error)) from error


class Progress:
    """Satisfies `ports.Progress`: facts to the status, the budget from the spec as it is now."""

    def __init__(self, own: OwnSearch) -> None:
        self._own = own
        self._leaving = False

    def leave(self) -> None:
        """This process was told to go: what is in flight is dropped, and the search goes on elsewhere."""
        self._leaving = True

    async def publish(self, facts: Mapping[str, Any]) -> LiveSpec:
        """See `ports.Progress`."""
        with _as_infrastructure():
            await self._own.publish(facts)
        return self.live()

    def live(self) -> LiveSpec:
        """On the search clock, whose deadline is the length that the spec asks for."""
        spec = self._own.spec
        budget = _budget(spec["budget"])
        return replace(budget, suspend=bool(spec.get("suspend")) or self._leaving, stop=bool(spec.get("stop")))


def _budget(budget: Mapping[str, Any]) -> LiveSpec:
    target = budget.get("targetSpeedup")
    return LiveSpec(
        deadline=float(budget["deadlineSeconds"]),
        max_attempts=int(budget.get("maxAttempts", 0)),
        max_tokens=int(budget.get("maxTokens", 0)),
        target_speedup=float(target) if target else None,
        grace_seconds=_seconds(budget, "gracePeriodSeconds"),
        unavailable_seconds=_seconds(budget, "unavailableSeconds"),
    )


def _seconds(budget: Mapping[str, Any], name: str) -> float | None:
    return float(budget[name]) if name in budget else None


class Store:
    """Satisfies `ports.Store`. A FencedError comes out as it is: it ends the process."""

    def __init__(self, checkpoints: kept.Checkpoints, search_uid: str, say: Callable[[str], None]) -> None:
        self._checkpoints, self._search_uid, self._say = checkpoints, search_uid, say
        self.seed: Mapping[str, Any] | None = None
        """What was published, as a checkpoint: for when the checkpoint itself was deleted or cannot be read."""

    async def load(self) -> Mapping[str, Any] | None:
        """See `ports.Store`. The newer of what was saved and what was published."""
        saved = await self._saved()
        if self.seed is not None and (saved is None or saved["sequence"] < self.seed["sequence"] - STRIDE):
            return self.seed
        return saved

    async def _saved(self) -> Mapping[str, Any] | None:
        """None too when nobody can go on from it: every later runner would fail at it again, until the deadline."""
        try:
            with _as_infrastructure():
                saved = await self._checkpoints.load()
            if saved is not None:
                state = checkpoint.from_mapping(saved)
                checkpoint.same_search(state, self._search_uid, state.problem)
        except (kept.UnreadableError, checkpoint.UnusableCheckpointError) as error:
            self._say(f"going on from what was published instead: {error}")
            return None
        return saved

    async def save(self, state: Mapping[str, Any]) -> None:
        """See `ports.Store`."""
        with _as_infrastructure():
            await self._checkpoints.save(state)


class BestKept:
    """Satisfies `ports.Archive`: only the best kernel is kept on a cluster so far."""

    def __init__(self, server: ApiServer, own: OwnSearch, origin: best.Origin) -> None:
        self._server, self._own, self._origin = server, own, origin

    async def append(self, record: Mapping[str, Any]) -> None:
        """See `ports.Archive`."""

    async def keep_best(self, record: Mapping[str, Any]) -> None:
        """See `ports.Archive`. The ConfigMap may have been deleted by hand, and made anew, empty, by the operator."""
        place = self._server, self._own.namespace, self._own.name
        with _as_infrastructure():
            if await kept.best_source(*place) != record["source"]:
                await kept.keep_best(*place, best.files(self._origin, record))


class Counting:
    """Satisfies `ports.Observer`: counts, and passes on."""

    def __init__(self, metrics: RunnerMetrics, inner: ports.Observer) -> None:
        self._metrics, self._inner = metrics, inner

    def on(self, event: ports.Event) -> None:
        """See `ports.Observer`."""
        match event:
            case ports.AttemptFinished():
                self._metrics.attempts.labels(event.verdict).inc()
                self._metrics.seconds.observe(event.seconds)
                for kind in ("prompt", "completion", "reasoning"):
                    self._metrics.tokens.labels(kind).inc(getattr(event.tokens, kind))
            case ports.Trouble():
                self._metrics.failures.labels(event.service.value).inc()
            case ports.BestImproved() if event.speedup is not None:
                self._metrics.best.set(event.speedup)
            case _:
                pass
        self._inner.on(event)


def _now() -> datetime:
    return datetime.now(UTC)


async def compare_clocks(server: ApiServer, say: Callable[[str], None], now: Callable[[], datetime] = _now) -> None:
    """Warn when this machine's time is another than the API server's. Raises ClusterError."""
    heard = await server.date(now)
    if heard and (warning := clocks.skew_warning(clocks.skew(*heard))):
        say(warning)


def clock(own: OwnSearch) -> MonotonicClock:
    """The search clock, as the operator's two fields say that it stands. It is started."""
    at = clocks.Clocks.read(own.status)
    made = MonotonicClock(at.used + ((_now() - at.segment).total_seconds() if at.segment else 0.0))
    made.start()
    return made
