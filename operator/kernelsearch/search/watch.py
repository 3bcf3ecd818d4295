"""Notices that the search is over, and ends what is in flight in good order.

Three signals, in the order in which they are set: `ended` (nothing new begins), `no_more_answers` (generations are
dropped), `no_more_verdicts` (evaluations are dropped). With the deadline the first comes at once, the second a moment
later, because the model's client cuts its answer at the same instant, and the third when the grace period is over.
Without grace all three come together.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from kernelsearch.search import budget, patience
from kernelsearch.search.budget import End, Spent
from kernelsearch.search.facts import Reason
from kernelsearch.search.ledger import Ledger
from kernelsearch.search.ports import Clock, InfrastructureError, LiveSpec, Observer, Service, Trouble

CUT_SECONDS = 2.0
"""For the client to hand over the answer that it cut at the deadline; part of the grace period."""

LAST_MOVES = 1.0
"""Seconds for chains to notice that nothing may run any more."""


class Watch:
    """When the search ends, and why."""

    def __init__(self, spec: LiveSpec, ledger: Ledger, clock: Clock, observer: Observer) -> None:
        self.spec = spec
        self.end: End | None = None
        self.ended, self.no_more_answers, self.no_more_verdicts = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.services = patience.Services(clock, observer, self._on_failure)
        self._ledger, self._clock, self._observer = ledger, clock, observer
        self._exhausted = ""

    @property
    def last_moment(self) -> float:
        """When the last evaluation must be over."""
        return self.spec.deadline + self._grace

    @property
    def _grace(self) -> float:
        asked = self.spec.grace_seconds
        return self._ledger.search.grace_seconds if asked is None else asked

    @property
    def _unavailable(self) -> float:
        asked = self.spec.unavailable_seconds
        return self._ledger.search.unavailable_seconds if asked is None else asked

    def check(self) -> bool:
        """Whether the search goes on. Once it ended, it stays ended."""
        if self.end is None:
            self.end = budget.why_ended(self.spec, self._ledger.population, self._spent(), self._unavailable)
            if self.end is not None:
                self.ended.set()
        return self.end is None

    async def follow(self) -> None:
        """Publish facts and read the live specification, at news and at each heartbeat. Runs until cancelled."""
        failures = 0
        while True:
            await self._ledger.next_news()
            try:
                self.spec = await self._ledger.publish()
            except InfrastructureError as error:
                failures += 1
                self._observer.on(Trouble(Service.PROGRESS, str(error), retry_in=patience.delay(failures)))
                await self._without_publishing(patience.delay(failures))
            else:
                failures = 0
                self._obey()

    async def _without_publishing(self, seconds: float) -> None:
        """So long; what the user asks for is obeyed all the same."""
        until = self._clock.now() + seconds
        while (left := until - self._clock.now()) > 0:
            self.spec = self._ledger.live()
            self._obey()
            await self._clock.sleep(min(left, self._ledger.search.heartbeat_seconds))

    async def pause(self) -> None:
        """A second in which the search may end."""
        await self._nap(1.0)

    async def over(self, chains: asyncio.Future[list[str]], *helpers: Coroutine[Any, Any, None]) -> End:
        """Wait until nothing runs any more, and say why. An error in a task, which can only be our own, comes out.

        Chains that stopped by themselves end the search; chains that cannot be stopped are left behind.
        """
        tasks: list[asyncio.Future[Any]] = [
            chains,
            *(asyncio.ensure_future(each) for each in (self._run_out(), *helpers)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if chains not in done:
                await self._last_moves(chains)
            elif self.check():
                self._exhaust("; ".join(sorted(set(chains.result()))))
        finally:
            for task in tasks:
                patience.abandon(task)
        if self.end is None:
            raise AssertionError("the loop is over and nobody knows why")
        return self.end

    async def _last_moves(self, chains: asyncio.Future[list[str]]) -> None:
        async def finished() -> None:
            await asyncio.wait({chains})

        try:
            await patience.within(LAST_MOVES, self._clock, finished())
        except TimeoutError:
            return
        chains.result()

    async def _run_out(self) -> None:
        """Returns once nothing may run any more."""
        while self.check():
            rest = min(self._ledger.search.heartbeat_seconds, self.spec.deadline - self._clock.now())
            await self._nap(max(0.001, rest))
        await self._wind_down()

    async def _wind_down(self) -> None:
        if self.end and self.end.grace:
            grace = self._grace
            cutting = min(CUT_SECONDS, grace) if self.end.reason is Reason.DEADLINE_REACHED else 0.0
            await self._clock.sleep(cutting)
            self.no_more_answers.set()
            await self._clock.sleep(grace - cutting)
        self.no_more_answers.set()
        self.no_more_verdicts.set()

    async def _nap(self, seconds: float) -> None:
        try:
            await patience.within(seconds, self._clock, self.ended.wait())
        except TimeoutError:
            return

    def _obey(self) -> None:
        """What the user asks for ends the grace period too."""
        if not self.check() and (self.spec.stop or self.spec.suspend) and self.end and self.end.grace:
            self.end = replace(self.end, grace=False)
            self.no_more_answers.set()
            self.no_more_verdicts.set()

    def _exhaust(self, why: str) -> None:
        self._exhausted = why
        self.check()

    def _on_failure(self) -> None:
        self._ledger.count_failure()
        self.check()

    def _spent(self) -> Spent:
        return Spent(
            now=self._clock.now(),
            tokens_in_flight=sum(self._ledger.in_flight.values()),
            model=self.services.outages.get(Service.MODEL),
            verifier=self.services.outages.get(Service.VERIFIER),
            refusal=self.services.refusal,
            exhausted=self._exhausted,
        )
