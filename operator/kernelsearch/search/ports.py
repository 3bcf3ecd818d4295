"""What the loop needs of the world, as small protocols that the loop owns.

Adapters live in `kernelsearch.clients`, in `kernelsearch.search.journal` and `archive`, and in `kernelsearch.cli`;
fakes for tests live in `tests/fakes.py`. Time is always a parameter: seconds on the clock of `Clock.now()`, which is
monotonic and counts the search's own time.

Whose fault is it? A bad candidate is a value (a `Report`, an `Answer` without code). Failed infrastructure is an
`InfrastructureError`: the loop repeats the attempt, counts it apart and never tells the model. A problem that cannot
be judged at all is the user's, an `UnusableProblemError`: the search ends and says what to write instead.

    Exception
    ├── InfrastructureError
    │   ├── ModelUnavailableError
    │   └── VerifierUnavailableError
    └── UnusableProblemError
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from kernelverify_api.report import Report
from kernelverify_api.request import Level


class InfrastructureError(Exception):
    """The model server, the verifier or the disk failed: not the candidate's doing. The message says what to do."""

    retry: ClassVar[bool] = True
    """False in classes of errors that another try of the same request cannot help: a wrong key, name or request."""

    since: float | None = None
    """When the service began to fail, on the search clock, where the adapter knows; it may have retried by itself."""


class ModelUnavailableError(InfrastructureError):
    """The model server could not be used."""


class VerifierUnavailableError(InfrastructureError):
    """No verifier could be used."""


class UnusableProblemError(Exception):
    """The verifier refuses the problem itself. The message names the line or attribute and what to write instead."""


class Finish(StrEnum):
    """Why a model's answer ended."""

    STOP = "stop"
    LENGTH = "length"
    """The model's own limit (`max_tokens`): `truncated`."""
    CUT = "cut"
    """We stopped it, because it could not end before the deadline."""


@dataclass(frozen=True)
class Tokens:
    """Token usage of one answer. `estimated` when the stream was cut and never reported its usage."""

    prompt: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.reasoning + other.reasoning,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True)
class Answer:
    """One answer of the model, raw: thought and content as the server separated them (or did not)."""

    content: str
    reasoning: str
    """The separated thought (`reasoning` or `reasoning_content`); empty when the server leaves it inside `content`."""
    finish: Finish
    tokens: Tokens
    model: str
    """The model's name as the server states it in the answer."""
    seconds: float

    @property
    def nothing(self) -> bool:
        """Whether the deadline came before a single token."""
        return self.finish is Finish.CUT and not self.content and not self.reasoning


@dataclass(frozen=True)
class Candidate:
    """A kernel to judge: Python text that defines `ModelNew`."""

    attempt: int
    source: str
    language: str
    level: Level


class Proposer(Protocol):
    """Asks the model."""

    async def propose(self, prompt: str, deadline: float, on_tokens: Callable[[int], None] | None = None) -> Answer:
        """Stream an answer, cutting it (`Finish.CUT`) when `deadline` comes first.

        `on_tokens` is called with the number of completion tokens so far, for the live display.
        Retries what is transient; raises ModelUnavailableError when the server cannot be used.
        """


class Verifier(Protocol):
    """Judges a candidate."""

    async def verify(self, candidate: Candidate, deadline: float) -> Report:
        """The verdict. A verifier that vanished is replaced and the candidate submitted again.

        Raises VerifierUnavailableError when none can be used before `deadline`, and on `infra_error` / `cancelled`;
        UnusableProblemError when the problem itself is refused.
        """


class Clock(Protocol):
    """Time as the search counts it."""

    def now(self) -> float:
        """Seconds of the search clock; monotonic."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long on this clock."""


class Store(Protocol):
    """Keeps the checkpoint durably: a journal on a laptop, a ConfigMap on a cluster."""

    async def load(self) -> Mapping[str, Any] | None:
        """The last saved checkpoint, or None for a new search."""

    async def save(self, state: Mapping[str, Any], /) -> None:
        """Durable once this returns. Raises InfrastructureError when it cannot be."""


class Archive(Protocol):
    """Keeps every attempt whole (prompt, thought, answer, report), and the best kernel where people look for it."""

    async def append(self, record: Mapping[str, Any]) -> None:
        """Best effort by contract: raises InfrastructureError when the disk is full; the loop warns and goes on."""

    async def keep_best(self, record: Mapping[str, Any]) -> None:
        """This is the best attempt: write it unless it is there. Asked again and again, as it may be lost at any time.

        Of an attempt that an earlier process made, the record may say no more than `verdict.recalled` does.
        """


@dataclass(frozen=True)
class LiveSpec:
    """What may change while a search runs, as last seen."""

    deadline: float
    """On the search clock, seconds."""
    suspend: bool = False
    stop: bool = False
    max_attempts: int = 0
    max_tokens: int = 0
    target_speedup: float | None = None
    grace_seconds: float | None = None
    """None: what it was when the search began."""
    unavailable_seconds: float | None = None
    """As above."""


class Progress(Protocol):
    """Makes facts visible; the heartbeat of the search."""

    def live(self) -> LiveSpec:
        """The budget and wishes as last known, for when nothing can be published."""

    async def publish(self, facts: Mapping[str, Any]) -> LiveSpec:
        """Show the facts (the runner's part of `status`, design/api.md) and return the budget as it now stands."""


class Service(StrEnum):
    """A part of the world that can fail."""

    MODEL = "model"
    VERIFIER = "verifier"
    STORE = "store"
    ARCHIVE = "archive"
    PROGRESS = "progress"


@dataclass(frozen=True)
class Started:
    """The search runs: from the beginning, or resumed with what an earlier process had found."""

    chains: int
    strategy: str
    resumed: bool
    prompt_version: str
    note: str = ""
    """What the user should know about how the configuration was read; often empty."""


@dataclass(frozen=True)
class AttemptStarted:
    """A prompt went to the model."""

    attempt: int
    chain: int
    step: str
    """`fresh`, `repair`, `improve` or `restart`."""
    base: int | None
    """The attempt that is repaired or improved."""
    idea: str
    """What the model was asked to try, in words; empty when it was left free."""


@dataclass(frozen=True)
class TokensSoFar:
    """The model is answering."""

    attempt: int
    chain: int
    tokens: int


@dataclass(frozen=True)
class Verifying:
    """A candidate went to the verifier."""

    attempt: int
    chain: int
    level: Level
    language: str


@dataclass(frozen=True)
class AttemptFinished:
    """A verdict is in the saved checkpoint."""

    attempt: int
    chain: int
    step: str
    verdict: str
    """A value of `population.Verdict`."""
    speedup: float | None
    tokens: Tokens
    seconds: float
    """From the prompt to the verdict."""
    reason: str
    """The verdict in one line, for people."""


@dataclass(frozen=True)
class AttemptDropped:
    """An attempt ended without a verdict, because the search ended first. It is not counted."""

    attempt: int
    chain: int
    reason: str


@dataclass(frozen=True)
class BestImproved:
    """A champion's figure is the new best."""

    attempt: int
    chain: int
    speedup: float | None
    """None when the kernel is right but nothing could time it (an emulated language)."""
    ci99: tuple[float, float] | None
    baseline: str
    seconds: float


@dataclass(frozen=True)
class Trouble:
    """Infrastructure failed; the loop retries or goes on without."""

    service: Service
    message: str
    chain: int | None = None
    retry_in: float | None = None
    """Seconds; None when it is not repeated."""


@dataclass(frozen=True)
class Ended:
    """The loop is over. `reason` is a value of `facts.Reason`."""

    reason: str
    message: str


Event = (
    Started
    | AttemptStarted
    | TokensSoFar
    | Verifying
    | AttemptFinished
    | AttemptDropped
    | BestImproved
    | Trouble
    | Ended
)


class Observer(Protocol):
    """Hears what happens, for the live display and `--json` events. Must not raise and must not block."""

    def on(self, event: Event) -> None:
        """One event; called in the loop's own thread, in the order in which things happened."""


class Silent:
    """An observer that shows nothing."""

    def on(self, event: Event) -> None:
        """Forget it."""
