"""What a search remembers: the best kernel, different correct ones, where each chain stands, and the counts. Pure.

Invariants, kept by `remember`, the only function that changes a population:
1. The best never gets worse: its figure is a re-verified (champion) one, and only a higher one replaces it.
2. Every attempt is counted once, under exactly one verdict; a `cut` answer is no attempt, only its tokens count.
3. Everything is bounded: `MAX_OTHERS` more kernels, one last attempt a chain, `MAX_RECENT` lines, `MAX_CURVE` points.
"""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from kernelsearch.search.facts import Best, Counters, CurvePoint, Recent, TokenCount
from kernelsearch.search.ports import Tokens
from kernelverify_api.report import Report, Status

MAX_OTHERS = 3
MAX_RECENT = 20
MAX_CURVE = 50
SAME_KERNEL = 0.1
"""Kernels whose sets of words differ by less than this share are one idea written twice."""


class Verdict(StrEnum):
    """How an attempt ended: what the verifier said, or why there was nothing to say."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    COMPILE_ERROR = "compile_error"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    REWARD_HACK = "reward_hack"
    SUSPICIOUS = "suspicious"
    NO_CODE = "no_code"
    TRUNCATED = "truncated"
    """The model's own limit came before its answer."""
    CUT = "cut"
    """Our deadline came before its answer; no attempt, never counted."""


class Kind(StrEnum):
    """What the model was asked for."""

    FRESH = "fresh"
    REPAIR = "repair"
    IMPROVE = "improve"
    RESTART = "restart"


@dataclass(frozen=True)
class Attempt:
    """One finished attempt, as far as later prompts and decisions need it."""

    id: int
    chain: int
    kind: Kind
    verdict: Verdict
    seconds: float
    """When its verdict came, on the search clock."""
    reason: str
    """The verdict in a line, for people."""
    base: int | None = None
    on_correct: bool = False
    """Whether this line of work began from a correct kernel (an improvement, or the repair of one)."""
    idea: str = ""
    source: str = ""
    language: str = ""
    error_class: str = ""
    """Equal for failures of the same sort; empty for a correct one."""
    feedback: str = ""
    """What the next prompt of this line of work tells about it."""
    confirmed: bool = False
    """Re-verified at level champion."""
    speedup: float | None = None
    ci99: tuple[float, float] | None = None
    baseline: str = ""
    baseline_us: float | None = None
    compared: str = ""
    """`faster`, `slower`, `same` or `ambiguous` against the baseline, as the verifier's paired test says."""
    microseconds: float | None = None
    bound: str = ""
    """`memory`, `compute` or `launch`, where a roofline is known."""
    roofline: float | None = None
    """Share of the roofline reached."""
    device: str = ""

    @property
    def failed(self) -> bool:
        """Whether the next prompt of this chain has something to repair."""
        return self.verdict is not Verdict.CORRECT

    def as_best(self) -> Best:
        """As the status shows it. A figure that was not re-verified is not shown."""
        return Best(
            attempt=self.id,
            source=self.source,
            language=self.language,
            found_after_seconds=self.seconds,
            speedup=self.speedup if self.confirmed else None,
            ci99=self.ci99 if self.confirmed else None,
            baseline=self.baseline,
            microseconds=self.microseconds if self.confirmed else None,
            verified_on=self.device,
        )

    def as_recent(self) -> Recent:
        """In a line."""
        return Recent(self.id, self.chain, self.verdict, self.speedup, self.seconds, self.reason, self.kind, self.idea)


@dataclass(frozen=True)
class Chain:
    """Where one line of work stands."""

    steps: int = 0
    """Finished attempts; with the seed, the whole random state of the strategy."""
    starts: int = 0
    """Fresh starts so far: which idea comes next."""
    last: Attempt | None = None
    streak: int = 0
    """Failures in a row."""
    same: int = 0
    """Failures of one class in a row."""


@dataclass(frozen=True)
class Population:
    """Everything remembered. Start with `Population.of(chains)`."""

    chains: tuple[Chain, ...]
    best: Attempt | None = None
    others: tuple[Attempt, ...] = ()
    """Correct kernels that differ most from the best and from each other."""
    counters: Counters = field(default_factory=Counters)
    tokens: TokenCount = field(default_factory=TokenCount)
    first_correct_seconds: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    recent: tuple[Recent, ...] = ()
    baseline_us: float | None = None

    @classmethod
    def of(cls, chains: int) -> "Population":
        """A new one."""
        return cls(chains=(Chain(),) * chains)

    def with_chains(self, chains: int) -> "Population":
        """The same knowledge for another number of chains."""
        return replace(self, chains=(*self.chains, *(Chain(),) * chains)[:chains])


def beats(population: Population, report: Report) -> bool:
    """Whether a report of level full is worth a re-verification: it would be the new best.

    A suspicious one is re-verified too: it clears only there, and never becomes best without.
    """
    if report.status not in {Status.CORRECT, Status.SUSPICIOUS}:
        return False
    best = population.best
    if report.timing is None:
        return best is None and report.status is Status.CORRECT
    return best is None or not _has_figure(best) or report.timing.speedup.ratio > (best.speedup or 0.0)


def remember(population: Population, attempt: Attempt, tokens: Tokens) -> Population:
    """The population after one more attempt, and the only way to change one."""
    population = replace(population, tokens=_spent(population.tokens, tokens))
    if attempt.verdict is Verdict.CUT:
        return population
    population = replace(
        population,
        counters=_counted(population.counters, attempt.verdict),
        chains=_advanced(population.chains, attempt),
        recent=(*population.recent, attempt.as_recent())[-MAX_RECENT:],
        baseline_us=attempt.baseline_us or population.baseline_us,
    )
    return _with_kernel(population, attempt) if attempt.verdict is Verdict.CORRECT else population


def count_infrastructure(population: Population, failures: int = 1) -> Population:
    """The population after calls that infrastructure broke."""
    counters = population.counters
    return replace(population, counters=replace(counters, infrastructure=counters.infrastructure + failures))


def pay(population: Population, tokens: Tokens) -> Population:
    """The population after tokens that led to no attempt."""
    return replace(population, tokens=_spent(population.tokens, tokens))


def forget_last(population: Population, chain: int) -> Population:
    """The population in which this chain starts afresh: its next prompt could not even be sent."""
    chains = list(population.chains)
    chains[chain] = replace(chains[chain], last=None, streak=0, same=0)
    return replace(population, chains=tuple(chains))


def difference(one: str, other: str) -> float:
    """How different two sources are, from 0 (same words) to 1 (none in common): Jaccard distance of their words."""
    first, second = (set(re.findall(r"\w+", text)) for text in (one, other))
    union = first | second
    return 1.0 - len(first & second) / len(union) if union else 0.0


def _has_figure(attempt: Attempt) -> bool:
    return attempt.confirmed and attempt.speedup is not None


def _better(attempt: Attempt, best: Attempt | None) -> bool:
    if best is None:
        return True
    if not _has_figure(attempt):
        return False
    return not _has_figure(best) or (attempt.speedup or 0.0) > (best.speedup or 0.0)


def _with_kernel(population: Population, attempt: Attempt) -> Population:
    first = population.first_correct_seconds
    population = replace(population, first_correct_seconds=attempt.seconds if first is None else first)
    if not _better(attempt, population.best):
        return replace(population, others=_most_different(population.best, (*population.others, attempt)))
    kept = population.others if population.best is None else (*population.others, population.best)
    point = CurvePoint(attempt.seconds, population.counters.total, attempt.as_best().speedup)
    return replace(
        population,
        best=attempt,
        others=_most_different(attempt, kept),
        curve=_thinned((*population.curve, point)),
    )


def _most_different(best: Attempt | None, kernels: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """At most MAX_OTHERS kernels, each the one that differs most from all taken before; faster ones win ties."""
    taken: list[Attempt] = [best] if best else []
    left = sorted(kernels, key=lambda kernel: (-(kernel.speedup or 0.0), kernel.id))
    while left and len(taken) <= MAX_OTHERS:
        distances = [min((difference(kernel.source, k.source) for k in taken), default=1.0) for kernel in left]
        farthest = max(range(len(left)), key=lambda index: distances[index])
        if distances[farthest] < SAME_KERNEL:
            break
        taken.append(left.pop(farthest))
    return tuple(taken[1:] if best else taken)


def _thinned(curve: tuple[CurvePoint, ...]) -> tuple[CurvePoint, ...]:
    """At most MAX_CURVE points: the step that says least goes first, the first and the last point stay."""
    if len(curve) <= MAX_CURVE:
        return curve
    gains = [(curve[i].speedup or 0.0) - (curve[i - 1].speedup or 0.0) for i in range(1, len(curve) - 1)]
    least = 1 + min(range(len(gains)), key=gains.__getitem__)
    return curve[:least] + curve[least + 1 :]


def _counted(counters: Counters, verdict: Verdict) -> Counters:
    return replace(counters, **{verdict.value: getattr(counters, verdict.value) + 1})


def _spent(count: TokenCount, tokens: Tokens) -> TokenCount:
    return TokenCount(
        count.prompt + tokens.prompt, count.completion + tokens.completion, count.reasoning + tokens.reasoning
    )


def _advanced(chains: tuple[Chain, ...], attempt: Attempt) -> tuple[Chain, ...]:
    chain = chains[attempt.chain]
    last_class = chain.last.error_class if chain.last and chain.last.failed else None
    started = attempt.kind in {Kind.FRESH, Kind.RESTART}
    goes_on = attempt.kind is Kind.REPAIR
    streak = chain.streak if goes_on else 0
    same = chain.same if goes_on and last_class == attempt.error_class else 0
    moved = Chain(
        steps=chain.steps + 1,
        starts=chain.starts + started,
        last=attempt,
        streak=streak + 1 if attempt.failed else 0,
        same=same + 1 if attempt.failed else 0,
    )
    return (*chains[: attempt.chain], moved, *chains[attempt.chain + 1 :])
