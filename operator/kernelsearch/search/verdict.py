"""Turns what came back (an answer without a kernel, or the verifier's reports) into an `Attempt`. Pure."""

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from kernelsearch.search import feedback, prompts, untrusted
from kernelsearch.search.extract import Kernel, NoKernel
from kernelsearch.search.population import Attempt, Kind, Verdict
from kernelsearch.search.ports import Answer, Finish
from kernelsearch.search.strategy import Fresh, Improve, Repair, Restart
from kernelverify_api.report import Report, Status

_PARTICULARS = re.compile("['\"\u2018].*?['\"\u2019]|0x[0-9a-fA-F]+|\\d+")
"""Quoted names (compilers use typographic quotes), addresses and numbers: they differ between equal mistakes."""


Reports = tuple[Report | None, Report | None]
"""Of level full and of level champion, as far as there are any."""

NO_REPORTS: Reports = (None, None)


@dataclass(frozen=True)
class Asked:
    """An attempt while it runs: what was asked of the model, and when."""

    id: int
    chain: int
    kind: Kind
    began: float
    base: int | None = None
    on_correct: bool = False
    idea: str = ""


def asked(number: int, chain: int, step: Fresh | Repair | Improve | Restart, began: float) -> Asked:
    """The attempt that carries out this step."""
    match step:
        case Fresh(idea):
            return Asked(number, chain, Kind.FRESH, began, idea=idea)
        case Restart(idea):
            return Asked(number, chain, Kind.RESTART, began, idea=idea)
        case Improve(base, method):
            return Asked(number, chain, Kind.IMPROVE, began, base.id, on_correct=True, idea=method)
        case Repair(base):
            return Asked(number, chain, Kind.REPAIR, began, base.id, base.on_correct, base.idea)


def attempt(asked_: Asked, answer: Answer, kernel: Kernel | NoKernel, reports: Reports, now: float) -> Attempt:
    """What became of it."""
    full, champion = reports
    if isinstance(kernel, NoKernel):
        return without_kernel(asked_, answer, kernel, now)
    if full is None:
        raise ValueError(f"attempt {asked_.id} has a kernel and no report: it must be verified before it is remembered")
    return from_reports(asked_, kernel, full, champion, now)


def without_kernel(asked_: Asked, answer: Answer, why: NoKernel, now: float) -> Attempt:
    """The attempt whose answer held nothing to judge."""
    verdict, words = {
        Finish.STOP: (Verdict.NO_CODE, feedback.no_kernel(why.reason)),
        Finish.LENGTH: (Verdict.TRUNCATED, feedback.truncated()),
        Finish.CUT: (Verdict.CUT, ""),
    }[answer.finish]
    return replace(_begun(asked_, verdict, now), reason=why.reason, error_class=verdict.value, feedback=words)


def from_reports(asked_: Asked, kernel: Kernel, full: Report, champion: Report | None, now: float) -> Attempt:
    """The attempt as the verifier judged it. A re-verification overrules the first judgement in everything."""
    report = champion or full
    attempt = _begun(asked_, Verdict(report.status.value), now)
    attempt = replace(
        attempt,
        source=kernel.source,
        language=kernel.language.value,
        reason=untrusted.line(report.summary, 300),
        feedback=feedback.words(report, kernel.language),
        error_class="" if attempt.verdict is Verdict.CORRECT else error_class(report),
        confirmed=champion is not None and champion.status is Status.CORRECT,
        device=untrusted.line(report.environment.device, 100) if report.environment else "",
    )
    return _with_timing(attempt, report)


def disturbed(report: Report) -> bool:
    """Whether nothing but a slowed baseline makes it suspicious: the machine was busy, or the candidate made it so."""
    return report.status is Status.SUSPICIOUS and feedback.critical(report) == {feedback.DISTURBED}


def error_class(report: Report) -> str:
    """Equal for failures of one sort: the verdict, and what the verifier says is the matter, without its numbers."""
    match report.status:
        case Status.COMPILE_ERROR if report.build and report.build.errors:
            detail = report.build.errors[0].message
        case Status.INCORRECT if report.correctness:
            wrong = next((each for each in report.correctness.sets if not each.ok), None)
            detail = (wrong.reason or wrong.pattern) if wrong else ""
        case Status.COMPILE_ERROR | Status.RUNTIME_ERROR | Status.TIMEOUT if report.failure:
            detail = f"{report.failure.stage} {report.failure.kind}"
        case _:
            detail = ""
    return f"{report.status.value}:{_general(detail)}" if detail else report.status.value


def _general(detail: str) -> str:
    first = untrusted.stripped(detail).strip().split("\n")[0]
    return " ".join(_PARTICULARS.sub("", first).split())[:80]


def _begun(asked_: Asked, verdict: Verdict, now: float) -> Attempt:
    return Attempt(
        id=asked_.id,
        chain=asked_.chain,
        kind=asked_.kind,
        verdict=verdict,
        seconds=now,
        reason="",
        base=asked_.base,
        on_correct=asked_.on_correct,
        idea=asked_.idea,
    )


def _with_timing(attempt: Attempt, report: Report) -> Attempt:
    timing = report.timing
    if timing is None or not math.isfinite(timing.speedup.ratio):
        return attempt
    roofline = timing.roofline
    return replace(
        attempt,
        speedup=timing.speedup.ratio,
        ci99=timing.speedup.ci99,
        baseline=timing.speedup.vs,
        baseline_us=timing.baselines.get(timing.speedup.vs),
        compared=timing.speedup.verdict,
        microseconds=timing.score_us,
        bound=roofline.bound if roofline else "",
        roofline=roofline.fraction if roofline else None,
    )


def recalled(attempt: Attempt) -> dict[str, Any]:
    """What a checkpoint knows of an attempt that an earlier process archived, or was killed before it could."""
    known: dict[str, Any] = {"attempt": attempt.id, "chain": attempt.chain, "step": attempt.kind.value}
    return {**known, "source": attempt.source, "language": attempt.language}


def as_record(asked_: Asked, prompt: str, answer: Answer, attempt: Attempt, reports: Reports) -> dict[str, Any]:
    """The whole attempt as the archive keeps it (`archive` describes the fields)."""
    full, champion = (report and report.model_dump(mode="json", by_alias=True) for report in reports)
    return {
        "schema": 1,
        "attempt": attempt.id,
        "chain": attempt.chain,
        "step": attempt.kind.value,
        "base": attempt.base,
        "idea": attempt.idea,
        "promptVersion": prompts.VERSION,
        "prompt": prompt,
        "answer": asdict(answer),
        "source": attempt.source or None,
        "language": attempt.language or None,
        "verdict": attempt.verdict.value,
        "reason": attempt.reason,
        "speedup": attempt.speedup,
        "confirmed": attempt.confirmed,
        "began": asked_.began,
        "seconds": attempt.seconds,
        "full": full,
        "champion": champion,
    }
