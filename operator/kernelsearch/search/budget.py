"""Whether the search goes on. Pure: `why_ended` is the only function that says why a search stopped."""

from dataclasses import dataclass, fields, replace

from kernelsearch.search.facts import Counters, Reason
from kernelsearch.search.population import Population
from kernelsearch.search.ports import LiveSpec


@dataclass(frozen=True)
class Outage:
    """A service that has answered nobody since a moment on the search clock."""

    since: float
    message: str
    """What it said last."""


@dataclass(frozen=True)
class Refusal:
    """Trying again cannot help: a refused key or name, a problem that cannot be judged."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Spent:
    """Where the search stands, beside what it remembers."""

    now: float
    tokens_in_flight: int = 0
    """Tokens of answers that are still coming in."""
    model: Outage | None = None
    verifier: Outage | None = None
    refusal: Refusal | None = None
    exhausted: str = ""
    """Why every chain stopped by itself, when all did."""


@dataclass(frozen=True)
class End:
    """The search is over."""

    reason: Reason
    message: str
    grace: bool
    """Whether evaluations in flight are still waited for, within the grace period."""


def why_ended(spec: LiveSpec, population: Population, spent: Spent, unavailable_seconds: float) -> End | None:
    """Why the search is over, or None while it goes on. What the user did comes first, then success, then limits."""
    return (
        _by_the_user(spec)
        or _by_success(spec, population, spent)
        or _by_limits(spec, population, spent)
        or _by_failure(spent, unavailable_seconds)
    )


def settle(end: End, population: Population) -> End:
    """The end as it stands once the grace period is over: a limit that was met without a correct kernel is a failure.

    Decided late, because an evaluation in flight at the deadline may still turn out correct.
    """
    limits = {Reason.DEADLINE_REACHED, Reason.ATTEMPTS_EXHAUSTED, Reason.BUDGET_EXHAUSTED}
    if end.reason not in limits or population.best is not None:
        return end
    return replace(end, reason=Reason.NO_CORRECT_KERNEL, message=f"{end.message}; {_tally(population.counters)}")


def may_start(spec: LiveSpec, population: Population, in_flight: int) -> bool:
    """Whether one more attempt keeps within the limit of attempts, should all in flight come to a verdict."""
    return not spec.max_attempts or population.counters.total + in_flight < spec.max_attempts


def _by_the_user(spec: LiveSpec) -> End | None:
    if spec.stop:
        return End(Reason.CANCELLED, "stopped as asked; what was found is kept", grace=False)
    if spec.suspend:
        return End(Reason.SUSPENDED, "suspended as asked; attempts in flight are dropped", grace=False)
    return None


def _by_success(spec: LiveSpec, population: Population, spent: Spent) -> End | None:
    best = population.best
    sure = best is not None and best.confirmed and best.compared != "ambiguous"
    if spec.target_speedup and best and sure and (best.speedup or 0.0) >= spec.target_speedup:
        message = f"attempt {best.id} is {best.speedup:.3g} times as fast as {best.baseline}, re-verified"
        return End(Reason.TARGET_REACHED, f"{message}; the target was {spec.target_speedup:g}", grace=False)
    if spent.exhausted:
        return End(Reason.TARGET_REACHED, spent.exhausted, grace=False)
    return None


def _by_limits(spec: LiveSpec, population: Population, spent: Spent) -> End | None:
    attempts, tokens = population.counters.total, population.tokens.total + spent.tokens_in_flight
    if spent.now >= spec.deadline:
        return End(Reason.DEADLINE_REACHED, f"the deadline of {spec.deadline:.0f} s was reached", grace=True)
    if spec.max_attempts and attempts >= spec.max_attempts:
        return End(Reason.ATTEMPTS_EXHAUSTED, f"{attempts} of {spec.max_attempts} attempts are made", grace=True)
    if spec.max_tokens and tokens >= spec.max_tokens:
        return End(Reason.BUDGET_EXHAUSTED, f"{tokens} of {spec.max_tokens} tokens are spent", grace=True)
    return None


def _by_failure(spent: Spent, unavailable_seconds: float) -> End | None:
    if spent.refusal:
        return End(spent.refusal.reason, spent.refusal.message, grace=False)
    for outage, who, reason in (
        (spent.model, "the model server", Reason.MODEL_UNAVAILABLE),
        (spent.verifier, "every verifier", Reason.VERIFIERS_UNAVAILABLE),
    ):
        if outage and spent.now - outage.since >= unavailable_seconds:
            message = f"{who} was unavailable for {spent.now - outage.since:.0f} s (limit {unavailable_seconds:g} s)"
            return End(reason, f"{message}, at last: {outage.message}", grace=True)
    return None


def _tally(counters: Counters) -> str:
    """`none of 7 attempts was correct: 4 compile_error, 3 incorrect`."""
    counts = {each.name: getattr(counters, each.name) for each in fields(counters) if each.name != "infrastructure"}
    seen = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"none of {counters.total} attempts was correct" + (f": {seen}" if seen else "")
