"""Several verifiers as one: which is asked next, which is set aside, and how long one question is tried.

No HTTP here: what a request does to a verifier's standing arrives as an error value.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from urllib.parse import urlsplit

from kernelsearch.clients import errors
from kernelsearch.search.ports import Clock, VerifierUnavailableError


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds, and how often to try again."""

    poll_s: float = 30.0
    """Length of one long poll."""
    answer_s: float = 15.0
    """A verifier that does not answer within this (and the poll) has vanished. Its API process does no heavy work."""
    cancel_s: float = 2.0
    """Cancelling is a courtesy: the job ends by its own `deadline_s` anyway."""
    audit_s: float = 600.0
    """An audit computes the reference dozens of times."""
    give_up_s: float = 60.0
    """No verifier usable for so long, the call gives up. The loop then shows the trouble, and calls again for as long
    as `budget.unavailableSeconds` allows."""
    resubmissions: int = 4
    """Submissions lost to `infra_error`, `cancelled` or a vanishing verifier before the attempt is given up: a
    candidate that takes verifiers down must not go round for ever. `infra_error` counts for several."""
    backoff: errors.Backoff = field(default_factory=lambda: errors.Backoff(first_s=0.5, longest_s=15.0))


SPOILT = 3
"""What a job that ended as `infra_error` counts for: its verifier has tried it twice, and two such are enough."""
NONE_S = 0.5
"""Between two looks at a pool without any verifier."""


class LostError(errors.TransientError):
    """The job was accepted and its verifier vanished: submitted again under the same key."""

    weight = 1
    """Of the resubmissions that are borne."""


class SpoiltError(LostError):
    """The job ended without a verdict (`infra_error`, `cancelled`): only a new key starts it anew."""

    def __init__(self, message: str, weight: int = 1) -> None:
        super().__init__(message)
        self.weight = weight


@dataclass
class Site:
    """One verifier, as seen from here."""

    url: str
    in_flight: int = 0
    position: int = 0
    """Jobs that were ahead of our last one: other clients' load."""
    failures: int = 0
    usable_from: float = 0.0
    """On the search clock."""

    @classmethod
    def of(cls, url: str) -> "Site":
        """Raises ValueError for what is no URL."""
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise ValueError(f"a verifier's URL is {url!r}; write it with scheme and host, as http://HOST:PORT")
        return cls(url.rstrip("/"))

    def load(self) -> tuple[int, int]:
        """What to compare by: the less, the sooner a new job's turn comes."""
        return self.in_flight + self.position, self.in_flight


class Pool:
    """All verifiers."""

    def __init__(self, urls: Sequence[str], clock: Clock, patience: Patience, random: Random) -> None:
        self._sites = [Site.of(url) for url in urls]
        self._clock = clock
        self._patience = patience
        self._random = random

    def renew(self, urls: Sequence[str]) -> None:
        """These are the verifiers from now on; what is known of those that stay is kept."""
        known = {site.url: site for site in self._sites}
        fresh = [Site.of(url) for url in urls]
        self._sites = [known.get(site.url, site) for site in fresh]

    async def choose(self, search: "Persistence") -> Site:
        """The least loaded verifier that is not set aside; waits for one to come back, or to be found."""
        while True:
            now = self._clock.now()
            search.check(now)
            usable = [site for site in self._sites if site.usable_from <= now]
            if usable:
                return min(usable, key=Site.load)
            soonest = min((site.usable_from for site in self._sites), default=now + NONE_S)
            await self._clock.sleep(max(0.01, min(soonest, search.ends(now)) - now))

    def put_aside(self, site: Site, error: errors.TransientError) -> None:
        """Ask others first for a while."""
        site.failures += 1
        site.position = 0
        delay = self._patience.backoff.delay(site.failures, error.retry_after, self._random)
        site.usable_from = self._clock.now() + delay


class Persistence:
    """How long one question has been tried, and when to stop."""

    def __init__(self, clock: Clock, patience: Patience, deadline: float) -> None:
        self._clock = clock
        self._patience = patience
        self._deadline = deadline
        self._failing_since: float | None = None
        self._last: errors.TransientError | None = None
        self._lost, self._borne = 0, patience.resubmissions
        self.key = uuid.uuid4().hex
        """Idempotency key of the next submission. Never derived from names or content: a verifier outlives searches."""

    def accepted(self) -> None:
        """A verifier took it: the service is there."""
        self._failing_since = None

    def note(self, url: str, error: errors.TransientError) -> None:
        """One more failure. Raises VerifierUnavailableError when it was the last that is borne."""
        self._last = error
        if self._failing_since is None:
            self._failing_since = self._clock.now()
        if isinstance(error, SpoiltError):
            self.key = uuid.uuid4().hex
        if isinstance(error, LostError):
            self._lost += 1
            self._borne -= error.weight
            if self._borne < 0:
                raise self._unavailable(
                    f"{self._lost} submissions of one candidate were lost, the last to {url}: {error}. "
                    "Look at the verifier's log"
                ) from error

    def ends(self, now: float) -> float:
        """When there is nothing left to wait for."""
        since = now if self._failing_since is None else self._failing_since
        return min(self._deadline, since + self._patience.give_up_s)

    def check(self, now: float) -> None:
        """Raise VerifierUnavailableError when the time is over."""
        if now < self.ends(now):
            return
        last = f", at last: {self._last}" if self._last else ""
        raise self._unavailable(
            f"no verifier could be used in time{last}. See that it runs and that GET /readyz answers 200 from here"
        ) from self._last

    def _unavailable(self, message: str) -> VerifierUnavailableError:
        error = VerifierUnavailableError(message)
        error.since = self._failing_since
        return error
