"""What is remembered, made durable, then visible: the only place that holds the state of a running search.

Invariants:
1. An attempt id is used only after a checkpoint with a higher `next_id` is saved: a killed search repeats none.
2. After a verdict: checkpoint, then archive, then published facts. Facts are always those of a saved checkpoint, so
   that what was published never falls back after a kill.
3. Saves are whole and in order. Verdicts that come in during a save share the next one.
4. The best kernel is where people look for it: written at each improvement, at a resume and at the end, and again
   whenever it was lost there.
5. `sequence` grows with every save and publication, across kills too: each save begins a new thousand thousand.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kernelsearch.search import budget, checkpoint, patience, population, prompts, verdict
from kernelsearch.search.checkpoint import Checkpoint
from kernelsearch.search.config import SearchConfig
from kernelsearch.search.facts import Facts, Outcome, ProblemFacts, Reason
from kernelsearch.search.population import Attempt, Population
from kernelsearch.search.ports import (
    Archive,
    AttemptDropped,
    AttemptFinished,
    BestImproved,
    Clock,
    Ended,
    InfrastructureError,
    LiveSpec,
    Observer,
    Progress,
    Service,
    Store,
    Tokens,
    Trouble,
)
from kernelsearch.search.verdict import Asked

BLOCK = 16
"""Attempt ids reserved by one save."""
STRIDE = 1_000_000
"""Publications that fit between two saves: eleven days of heartbeats."""
SAVE_SECONDS = 10.0
"""Between saves of what came without a verdict: failures of infrastructure, tokens of dropped answers."""
ARCHIVE_SECONDS = 30.0
KEEP_SECONDS = 30.0
"""Between looks whether the best kernel is still kept: a hand may delete it, an outage may have cost its writing."""
PUBLISH_SECONDS = 10.0
LAST_SECONDS = 2.0
"""For the last save and for the last publication: the operator waits 5 s after the grace period, not longer."""


class Ledger:
    """The state of one search. Begin with `open`, end with `close`."""

    def __init__(
        self,
        search: SearchConfig,
        state: Checkpoint,
        store: Store,
        archive: Archive,
        progress: Progress,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._search = search
        self._state = self._saved = state
        self._version = self._saved_version = 0
        self._store, self._archive, self._progress = store, archive, progress
        self._clock, self._observer = clock, observer
        self._saving, self._keeping = asyncio.Lock(), asyncio.Lock()
        best = state.population.best
        self._best: Mapping[str, Any] | None = verdict.recalled(best) if best else None
        self._next_id = state.next_id
        self._news = asyncio.Event()
        self.in_flight: dict[int, int] = {}
        """Tokens heard so far, by attempt."""
        self.resumed = False

    @classmethod
    async def open(
        cls,
        search: SearchConfig,
        width: int,
        store: Store,
        archive: Archive,
        progress: Progress,
        clock: Clock,
        observer: Observer,
    ) -> "Ledger":
        """The ledger of a new search, or of one that an earlier process left.

        Raises UnusableCheckpointError, and InfrastructureError when the store does not work at all: saving once before
        anything is published also lifts `sequence` above whatever a killed process had published.
        """
        kept = await store.load()
        state = _resumed(search, width, kept) if kept else _new(search, width)
        ledger = cls(replace(search, problem=state.problem), state, store, archive, progress, clock, observer)
        ledger.resumed = kept is not None
        ledger._change(next_id=state.next_id + BLOCK)
        await ledger._save_once()
        return ledger

    @property
    def population(self) -> Population:
        """Everything remembered, the latest verdicts included."""
        return self._state.population

    @property
    def search(self) -> SearchConfig:
        """The search as it is really run: a resumed one keeps the problem that it began with."""
        return self._search

    async def reserve(self) -> int:
        """A new attempt id, safe to use; the attempt is in flight from now on."""
        number, self._next_id = self._next_id, self._next_id + 1
        self.in_flight[number] = 0
        while self._saved.next_id <= number:
            self._change(next_id=number + BLOCK)
            await self._save()
        return number

    def heard(self, number: int, tokens: int) -> None:
        """So many tokens of this answer have come in."""
        if number in self.in_flight:
            self.in_flight[number] = tokens

    def pay_heard(self, number: int) -> None:
        """What was heard of this answer is lost, its stream broke: paid for, and heard anew."""
        if heard := self.in_flight.get(number):
            self._change(population=population.pay(self.population, Tokens(completion=heard, estimated=True)))
            self.in_flight[number] = 0

    def count_failure(self) -> None:
        """A call failed that was not the candidate's doing. Saved with the next verdict."""
        self._change(population=population.count_infrastructure(self.population))

    def forget_last(self, chain: int) -> None:
        """This chain starts afresh."""
        self._change(population=population.forget_last(self.population, chain))

    async def record(self, asked: Asked, attempt: Attempt, tokens: Tokens, record: Mapping[str, Any]) -> None:
        """An attempt came to its end: checkpoint, archive, facts, in this order."""
        before = self.population.best
        self._change(population=population.remember(self.population, attempt, tokens))
        self.heard(attempt.id, 0)
        improved = self.population.best is not before
        await self._save()
        self.in_flight.pop(attempt.id, None)
        record = {**record, "best": improved}
        await self._archive_it(record)
        if improved:
            self._best = record
            await self._keep_best()
        self._tell(asked, attempt, tokens, improved)
        self._news.set()

    def drop(self, asked: Asked, tokens: Tokens, reason: str) -> None:
        """An attempt ended without a verdict. Its tokens are paid for all the same."""
        self.in_flight.pop(asked.id, None)
        self._change(population=population.pay(self.population, tokens))
        self._observer.on(AttemptDropped(asked.id, asked.chain, reason))

    async def publish(self) -> LiveSpec:
        """Show the saved facts; the budget as it now stands. Raises InfrastructureError."""
        self._saved = replace(self._saved, sequence=self._saved.sequence + 1)
        facts = self._facts(self._saved).to_status()
        try:
            return await patience.within(PUBLISH_SECONDS, self._clock, self._progress.publish(facts))
        except TimeoutError as error:
            raise InfrastructureError(f"publishing the facts: {error}; is the API server reachable?") from error

    def live(self) -> LiveSpec:
        """The budget and the user's wishes, as last known."""
        return self._progress.live()

    async def next_news(self) -> None:
        """Wait until there is something new to publish, or for a heartbeat."""
        try:
            await patience.within(self._search.heartbeat_seconds, self._clock, self._news.wait())
        except TimeoutError:
            return
        self._news.clear()

    async def keep_saved(self) -> None:
        """Save, now and then, what no verdict has saved. Runs until cancelled."""
        while True:
            await self._clock.sleep(SAVE_SECONDS)
            await self._save()

    async def keep_best(self) -> None:
        """Write the best kernel wherever it is missing, at once and now and then. Runs until cancelled."""
        while True:
            await self._keep_best()
            await self._clock.sleep(KEEP_SECONDS)

    async def close(self, end: budget.End) -> Outcome:
        """The last checkpoint and the last facts. Whatever fails here is told, and holds nothing up."""
        outcome = Outcome(end.reason, end.message, self._clock.now(), datetime.now(UTC).isoformat(timespec="seconds"))
        published = None if end.reason is Reason.SUSPENDED else outcome
        self._change(outcome=published)
        self.in_flight.clear()
        last = self._at_last(Service.ARCHIVE, self._write_best())
        await asyncio.gather(self._at_last(Service.STORE, self._save()), last)
        self._saved = replace(self._state, sequence=self._saved.sequence + 1)
        facts = self._facts(self._saved).to_status()
        await self._at_last(Service.PROGRESS, self._publish_surely(facts))
        self._observer.on(Ended(end.reason, end.message))
        return outcome

    def _change(self, **parts: Any) -> None:
        self._state = replace(self._state, **parts)
        self._version += 1

    async def _save(self) -> None:
        """Returns once everything known at the time of the call is durable."""
        wanted = self._version
        failures = 0
        async with self._saving:
            while self._saved_version < wanted:
                try:
                    await self._save_once()
                except InfrastructureError as error:
                    failures += 1
                    self._observer.on(Trouble(Service.STORE, str(error), retry_in=patience.delay(failures)))
                    await self._clock.sleep(patience.delay(failures))

    async def _save_once(self) -> None:
        version = self._version
        sequence = (self._saved.sequence // STRIDE + 1) * STRIDE
        state = replace(self._state, sequence=sequence, seconds=self._clock.now())
        await self._store.save(checkpoint.to_mapping(state))
        self._saved, self._saved_version = state, version

    async def _archive_it(self, record: Mapping[str, Any]) -> None:
        try:
            await patience.within(ARCHIVE_SECONDS, self._clock, self._archive.append(record))
        except (InfrastructureError, TimeoutError) as error:
            self._observer.on(Trouble(Service.ARCHIVE, f"attempt {record['attempt']}: {error}"))

    async def _keep_best(self) -> None:
        try:
            await patience.within(ARCHIVE_SECONDS, self._clock, self._write_best())
        except (InfrastructureError, TimeoutError) as error:
            self._observer.on(Trouble(Service.ARCHIVE, f"the best kernel: {error}", retry_in=KEEP_SECONDS))

    async def _write_best(self) -> None:
        """One at a time: the one that waits writes the later best."""
        async with self._keeping:
            if self._best is not None:
                await self._archive.keep_best(self._best)

    async def _publish_surely(self, facts: Mapping[str, Any]) -> None:
        """Again and again: an outcome that nobody sees makes the operator start another runner."""
        while True:
            try:
                await self._progress.publish(facts)
            except InfrastructureError:
                await self._clock.sleep(LAST_SECONDS / 8)
            else:
                return

    async def _at_last(self, service: Service, work: Any) -> None:
        try:
            await patience.within(LAST_SECONDS, self._clock, work)
        except (InfrastructureError, TimeoutError) as error:
            self._observer.on(Trouble(service, f"at the end: {error}"))

    def _tell(self, asked: Asked, attempt: Attempt, tokens: Tokens, improved: bool) -> None:
        self._observer.on(
            AttemptFinished(
                attempt.id,
                attempt.chain,
                asked.kind,
                attempt.verdict,
                attempt.speedup,
                tokens,
                attempt.seconds - asked.began,
                attempt.reason,
            )
        )
        if improved:
            best = attempt.as_best()
            self._observer.on(
                BestImproved(attempt.id, attempt.chain, best.speedup, best.ci99, best.baseline, attempt.seconds)
            )

    def _facts(self, saved: Checkpoint) -> Facts:
        known = saved.population
        return Facts(
            sequence=saved.sequence,
            attempts=known.counters,
            in_flight=len(self.in_flight),
            tokens=known.tokens,
            problem=ProblemFacts(
                self._search.problem.name, self._search.problem_sha256, self._search.degenerate, known.baseline_us
            ),
            best=known.best.as_best() if known.best else None,
            first_correct_seconds=known.first_correct_seconds,
            curve=known.curve,
            recent=known.recent,
            outcome=saved.outcome,
        )


def _new(search: SearchConfig, width: int) -> Checkpoint:
    return Checkpoint(
        sequence=0,
        seconds=0.0,
        next_id=1,
        problem=search.problem,
        population=Population.of(width),
        strategy=search.strategy,
        seed=search.seed,
        prompt_version=prompts.VERSION,
        uid=search.uid,
    )


def _resumed(search: SearchConfig, width: int, kept: Mapping[str, Any]) -> Checkpoint:
    state = checkpoint.from_mapping(kept)
    checkpoint.same_search(state, search.uid, search.problem)
    return replace(
        state,
        population=state.population.with_chains(width),
        strategy=search.strategy,
        seed=search.seed,
        prompt_version=prompts.VERSION,
        outcome=None,
    )
