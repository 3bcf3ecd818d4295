"""What went wrong with a service, whether another try can help, and how long to wait before it.

    InfrastructureError                   search.ports: what the loop sees
    ├── ModelUnavailableError             search.ports
    │   └── ModelRefusedError             another try cannot help: wrong key, wrong name, a request it does not take
    └── VerifierUnavailableError          search.ports
        └── VerifierRefusedError          another try cannot help: a request that it does not take
    UnusableProblemError                  search.ports: the verifier refuses the problem itself

    TransientError                        inside the clients only: try again

Errors of openai, of its HTTP library and of aiohttp end here: they are chained as causes and never leak.
"""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import ClassVar

from kernelsearch.search.ports import ModelUnavailableError, VerifierUnavailableError

LONGEST_RETRY_AFTER = 120.0
"""Servers have been seen to ask for hours; a search has minutes, so it looks again earlier."""
RETRIED_CLIENT_ERRORS = frozenset({408, 409, 425, 429})
"""4xx that speak of the moment, not of the request: timeout, conflict, too early, too many."""


class ModelRefusedError(ModelUnavailableError):
    """The model server understood and said no. The message says what to change."""

    retry: ClassVar[bool] = False


class VerifierRefusedError(VerifierUnavailableError):
    """The verifier understood and said no. The message says what to change."""

    retry: ClassVar[bool] = False


class TransientError(Exception):
    """Something that may be over soon. `retry_after`: seconds that the server asked for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Backoff:
    """Waits that double, with jitter so that chains which failed together do not come back together."""

    first_s: float = 1.0
    longest_s: float = 30.0

    def delay(self, failures: int, retry_after: float | None, random: Random) -> float:
        """Seconds to wait after so many failures in a row (counted from 1).

        At least what the server asked for; the jitter then only adds, for coming early would be refused again.
        """
        doubled = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        if retry_after is None:
            return doubled * random.uniform(0.5, 1.0)
        return min(retry_after, LONGEST_RETRY_AFTER) + min(doubled, 1.0) * random.uniform(0.0, 0.5)


def is_transient(status: int) -> bool:
    """Whether another try of the same request can succeed after this HTTP status."""
    return status >= 500 or status in RETRIED_CLIENT_ERRORS  # noqa: PLR2004 - the class of server errors


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of the Retry-After header, in both of its forms; None when absent or unreadable."""
    text = headers.get("retry-after") or headers.get("Retry-After") or ""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
