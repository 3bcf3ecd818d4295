"""Turns what came back (an answer without a kernel, or the verifier's reports) into an `Attempt`. Pure."""

import math
import re
from dataclasses import dataclass, replace

from kernelsearch.search import extract, feedback, untrusted
from kernelsearch.search.population import Attempt, Kind, Verdict
from kernelsearch.search.ports import Answer, Finish
from kernelsearch.search.strategy import Fresh, Improve, Repair, Restart
from kernelverify_api.report import Report, Status

_PARTICULARS = re.compile("['\"\u2018].*?['\"\u2019]|0x[0-9a-fA-F]+|\\d+")
"""Quoted names (compilers use typographic quotes), addresses and numbers: they differ between equal mistakes."""


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


def without_kernel(asked_: Asked, answer: Answer, why: extract.NoKernel, now: float) -> Attempt:
    """The attempt whose answer held nothing to judge."""
    verdict, words = {
        Finish.STOP: (Verdict.NO_CODE, feedback.no_kernel(why.reason)),
        Finish.LENGTH: (Verdict.TRUNCATED, feedback.truncated()),
        Finish.CUT: (Verdict.CUT, ""),
    }[answer.finish]
    return replace(_begun(asked_, verdict, now), reason=why.reason, error_class=verdict.value, feedback=words)


def from_reports(asked_: Asked, kernel: extract.Kernel, full: Report, champion: Report | None, now: float) -> Attempt:
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
        microseconds=timing.score_us,
        bound=roofline.bound if roofline else "",
        roofline=roofline.fraction if roofline else None,
    )
