"""Where a search stands: the `status` of a KernelSearch. At most 64 KiB; every field has exactly one owner.

The operator owns phase, conditions and clocks; the runner owns what it found (`search.facts` makes that part). Both
write by server-side apply, each always everything that it owns.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from kernelsearch.api.condition import Conditions
from kernelsearch.api.part import ATOMIC, Count, Fraction, Part, Seconds, Sha256, Time
from kernelsearch.api.references import KeyRef

MAX_SOURCE = 32 * 1024
"""Characters of the best kernel's source."""


class Phase(StrEnum):
    """The state in a word, for people; programs read conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Attempts(Part):
    """Attempts by verdict."""

    total: Count = 0
    """All that came to a verdict."""
    correct: Count = 0
    """Right on every input; faster or not."""
    incorrect: Count = 0
    """A wrong answer."""
    compile_error: Count = 0
    """The kernel does not compile."""
    runtime_error: Count = 0
    """It raised or crashed."""
    timeout: Count = 0
    """It took too long."""
    reward_hack: Count = 0
    """It cheats: its answer is not caused by a kernel of its own, or it attacks the judge."""
    suspicious: Count = 0
    """Implausibly fast, and not confirmed."""
    no_code: Count = 0
    """An answer without a kernel."""
    truncated: Count = 0
    """The model's own limit came before its answer."""
    in_flight: Count = 0
    """Asked, and not judged yet."""
    infrastructure: Count = 0
    """Calls to model or verifier that failed and were repeated; no attempts."""


class TokenCounts(Part):
    """Tokens paid for."""

    prompt: Count = 0
    """In prompts."""
    completion: Count = 0
    """In answers, thought included."""
    reasoning: Count = 0
    """In thoughts."""


class Best(Part):
    """The best kernel so far, with the figure that its re-verification measured."""

    attempt: Count
    """Its attempt's number."""
    speedup: Fraction | None = None
    """How many times as fast as the fastest baseline. Absent: right, but never timed."""
    speedup_ci: Annotated[tuple[Fraction, ...], Field(min_length=2, max_length=2, json_schema_extra=ATOMIC)] | None = (
        Field(default=None, alias="speedupCI")
    )
    """99 % confidence interval of the speed-up."""
    baseline: str | None = Field(default=None, max_length=63)
    """The fastest baseline."""
    microseconds: Fraction | None = None
    """Time of one call."""
    language: str = Field(max_length=16)
    """Language it is written in."""
    sha256: Sha256
    """Of its whole source."""
    source: str = Field(max_length=MAX_SOURCE)
    """Its source, cut to 32 KiB; whole in the ConfigMap `<name>-best`."""
    source_truncated: bool | None = None
    """True when `source` is cut."""
    source_ref: KeyRef | None = None
    """Where the whole source is."""
    verified_on: str | None = Field(default=None, max_length=253)
    """The device that it was verified on."""
    found_after_seconds: Seconds
    """When it was found, on the search clock."""


class CurvePoint(Part):
    """A moment at which the best kernel got better."""

    seconds: Seconds
    """On the search clock."""
    attempts: Count
    """Finished by then."""
    best_speedup: Fraction | None = None
    """The best speed-up from then on; absent for a kernel that was not timed."""


class RecentAttempt(Part):
    """One of the last attempts."""

    id: Count
    """Its number."""
    chain: Count
    """The chain that made it."""
    verdict: str = Field(max_length=32)
    """How it ended."""
    speedup: Fraction | None = None
    """How many times as fast as the fastest baseline, where timed."""
    seconds: Seconds
    """When its verdict came, on the search clock."""
    reason: str = Field(max_length=500)
    """The verdict in a sentence."""


class Degenerate(Part):
    """Why the problem can be solved without computing it."""

    finding: str = Field(max_length=64)
    """What passes: zeros, a constant, another input's answer, other weights' answer; or what disagrees with itself."""
    criterion: str = Field(default="", max_length=64)
    """The criterion under which it passes."""
    evidence: str = Field(default="", max_length=500)
    """What was measured."""


class ProblemStatus(Part):
    """The problem as it is judged."""

    name: str = Field(max_length=253)
    """Its name."""
    sha256: Sha256
    """Identity of reference, dtype and TF32 policy."""
    degenerate: Degenerate | None = None
    """What the audit found wrong with it. Absent: nothing."""
    baseline_microseconds: Fraction | None = None
    """Time of one call of the fastest baseline."""


class OutcomeStatus(Part):
    """Why the loop ended."""

    reason: str = Field(max_length=64)
    """In a word for programs, such as `DeadlineReached`."""
    message: str = Field(max_length=500)
    """In a sentence for people."""
    time: Time | None = None
    """When."""


class KernelSearchStatus(Part):
    """Where the search stands."""

    phase: Phase | None = None
    """The state in a word, for people: Pending, Starting, Running, Suspended, Succeeded or Failed."""
    conditions: Conditions | None = None
    """The state for programs. `Complete` says that it ended and why; `Solved` that a correct kernel exists."""
    observed_generation: Count | None = None
    """Generation of the spec that the operator last acted on."""
    start_time: Time | None = None
    """When the search was accepted. From then on only `budget`, `suspend`, `stop` and what tidies
    up afterwards may change."""
    segment_start_time: Time | None = None
    """When the search clock last started. Absent: it stands."""
    deadline_time: Time | None = None
    """When the search ends if nothing is suspended before."""
    used_seconds: Seconds | None = None
    """Search clock of the segments before this one."""
    startup_segment_start_time: Time | None = None
    """When the start-up clock last started. Absent: it stands."""
    startup_used_seconds: Seconds | None = None
    """Start-up clock of the segments before this one."""
    completion_time: Time | None = None
    """When the search ended."""
    sequence: Count | None = None
    """Grows with every publication of the runner."""
    attempts: Attempts | None = None
    """Attempts by verdict."""
    tokens: TokenCounts | None = None
    """Tokens paid for."""
    best: Best | None = None
    """The best kernel so far. Absent: none was correct."""
    first_correct_seconds: Seconds | None = None
    """When the first correct kernel was found, on the search clock."""
    curve: tuple[CurvePoint, ...] | None = Field(default=None, max_length=50, json_schema_extra=ATOMIC)
    """The best speed-up over time."""
    recent_attempts: tuple[RecentAttempt, ...] | None = Field(default=None, max_length=20, json_schema_extra=ATOMIC)
    """The last attempts, the latest last."""
    problem: ProblemStatus | None = None
    """The problem as it is judged."""
    outcome: OutcomeStatus | None = None
    """Why the runner's loop ended. Absent: it has not."""
