"""Waiting that always ends: calls into adapters that may fail, hang, or ignore their deadline.

A call runs as a task of its own and is raced against whatever ends its time. A loser is cancelled and left alone: an
adapter that swallows the cancellation cannot hold the loop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kernelsearch.search.budget import Outage, Refusal
from kernelsearch.search.facts import Reason
from kernelsearch.search.ports import (
    Clock,
    InfrastructureError,
    Observer,
    Service,
    Trouble,
    UnusableProblemError,
)

T = TypeVar("T")

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
"""Seconds between tries of what infrastructure broke: doubling, so that a server that restarts is not hammered."""

POISON = 5
"""Failures in a row of one request, after which the request is held to be what breaks the service: a prompt that a
server cannot stomach (believed only while others are served), a candidate that takes the verifier down each time."""


class InterruptedWaitError(Exception):
    """What was waited for is no longer wanted: the search is ending."""


class GivenUpError(Exception):
    """This very request is refused, or keeps failing while others are served: something else must be tried."""


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row, counted from 1."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10)))


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or InterruptedWaitError once `stop` is set. A result that is there counts."""
    return await _first(work, stop.wait(), InterruptedWaitError())


async def within(seconds: float, clock: Clock, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or TimeoutError after so many seconds of `clock`."""
    return await _first(work, clock.sleep(seconds), TimeoutError(f"no answer within {seconds:g} s"))


async def _first(work: Coroutine[Any, Any, T], end: Coroutine[Any, Any, Any], otherwise: Exception) -> T:
    task, timer = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise otherwise
    finally:
        timer.cancel()
        abandon(task)


def abandon(task: asyncio.Future[Any]) -> None:
    """Cancel it and do not wait; what it may still raise is of no interest to anyone."""
    task.cancel()
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


class Services:
    """Model and verifier as the loop sees them: calls are repeated until they succeed or the search ends."""

    def __init__(self, clock: Clock, observer: Observer, on_failure: Callable[[], None]) -> None:
        self._clock = clock
        self._observer = observer
        self._on_failure = on_failure
        self._served: Counter[Service] = Counter()
        self.outages: dict[Service, Outage] = {}
        """Services that have answered nobody since."""
        self.refusal: Refusal | None = None
        """Set once: trying again cannot help."""

    async def insist(
        self, service: Service, call: Callable[[], Coroutine[Any, Any, T]], stop: asyncio.Event, chain: int
    ) -> T:
        """The result of the first call that succeeds. Raises InterruptedWaitError once `stop` is set, GivenUpError."""
        failures, served = 0, self._served[service]
        while True:
            try:
                result = await unless(stop, call())
            except UnusableProblemError as error:
                self._refuse(Reason.PROBLEM_UNSOLVABLE, str(error))
            except InfrastructureError as error:
                failures += 1
                self._failed(service, error, chain, delay(failures))
                self._consider(service, error, failures, others=self._served[service] - served)
            else:
                self._served[service] += 1
                self.outages.pop(service, None)
                return result
            await unless(stop, self._clock.sleep(delay(failures)))

    def _failed(self, service: Service, error: InfrastructureError, chain: int, retry_in: float) -> None:
        known = self.outages.get(service)
        now = self._clock.now()
        since = known.since if known else now if error.since is None else min(now, error.since)
        self.outages[service] = Outage(since, str(error))
        self._observer.on(Trouble(service, str(error), chain, retry_in if error.retry else None))
        self._on_failure()

    def _consider(self, service: Service, error: InfrastructureError, failures: int, others: int) -> None:
        """Whether to go on trying. A refusal is about this request where the service has ever served another.

        Giving up a candidate costs one answer of the model; a single chain that insists on a poisonous one would end
        the search. Giving up a prompt costs the chain its place, so others must be served meanwhile.
        """
        poison = failures >= POISON and (others > 0 or service is Service.VERIFIER)
        if not error.retry and not self._served[service]:
            unavailable = Reason.MODEL_UNAVAILABLE if service is Service.MODEL else Reason.VERIFIERS_UNAVAILABLE
            self._refuse(unavailable, str(error))
        elif not error.retry or poison:
            raise GivenUpError(f"given up after {failures} failure(s): {error}") from error

    def _refuse(self, reason: Reason, message: str) -> None:
        self.refusal = self.refusal or Refusal(reason, message)
        self._on_failure()
