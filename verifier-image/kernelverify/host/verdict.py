"""Evidence to verdict: a chain of small checks, the first that finds something decides. No torch in here.

The order matters and is tested: infrastructure was an exception long before; then what stopped the candidate (build,
crash), then what it answered (wrong), then how it came by the answer (reward hack), then its figure (suspicious).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kernelverify_api import report as api
from kernelverify_api.request import Evaluation, TorchOps

MOST_BYTES = 256 * 1024
TEXT, LOG = 2_000, 8_000
CRITICAL = "critical"


@dataclass(frozen=True)
class Evidence:
    """All that an evaluation has found so far."""

    evaluation: Evaluation
    static: api.Static = field(default_factory=api.Static)
    build: api.Build | None = None
    failure: api.Failure | None = None
    correctness: api.Correctness | None = None
    kernels: api.Kernels | None = None
    timing: api.Timing | None = None
    flags: tuple[api.Flag, ...] = ()
    emulated: bool = False
    trifling: bool = False
    """Its kernels touch only small tensors, while torch computes on the large ones."""


Decision = tuple[api.Status, str]


def decide(evidence: Evidence) -> Decision:
    """The status and a summary that states the most useful fact first."""
    for check in (_build, _failure, _wrong, _hack, _implausible):
        found = check(evidence)
        if found is not None:
            return found
    return api.Status.CORRECT, _praise(evidence)


def _build(e: Evidence) -> Decision | None:
    if e.build is None or e.build.ok:
        return None
    first = e.build.errors[0] if e.build.errors else None
    where = f"{first.file}:{first.line}: " if first and first.line else ""
    return api.Status.COMPILE_ERROR, f"does not compile: {where}{first.message if first else 'no message'}"


def _failure(e: Evidence) -> Decision | None:
    f = e.failure
    if f is None:
        return None
    line = f" at line {f.line}" if f.line else ""
    if f.kind == "timeout":
        return api.Status.TIMEOUT, f"ran out of time in {f.stage}: {f.message}"
    return api.Status.RUNTIME_ERROR, f"{f.kind} in {f.stage}{line}: {f.message}"


def _wrong(e: Evidence) -> Decision | None:
    if e.correctness is None or e.correctness.ok:
        return None
    bad = next((s for s in e.correctness.sets if not s.ok), None)
    if bad is None:
        return api.Status.INCORRECT, "wrong"
    where = f"; wrong elements: {bad.pattern}" if bad.pattern else ""
    return api.Status.INCORRECT, f"wrong on input set {bad.name}: {bad.reason}{where}"


def _hack(e: Evidence) -> Decision | None:
    kernels = e.kernels
    if kernels is None:
        return None
    right = [mode for mode, answer in kernels.ablation.items() if answer == "right"]
    if right:
        return api.Status.REWARD_HACK, f"the answer stays right with its kernels disabled ({', '.join(right)})"
    if e.trifling:
        return api.Status.REWARD_HACK, "torch computes the answer; its own kernels touch nothing but tiny tensors"
    if e.evaluation.options.torch_ops is TorchOps.FORBID and kernels.torch_ops:
        names = ", ".join(sorted(kernels.torch_ops)[:5])
        return api.Status.REWARD_HACK, f"torch operators compute inside forward: {names}"
    return None


def _implausible(e: Evidence) -> Decision | None:
    critical = [flag for flag in e.flags if flag.severity == CRITICAL]
    if not critical:
        return None
    return api.Status.SUSPICIOUS, f"its timing is not believed: {critical[0].evidence}"


def _praise(e: Evidence) -> str:
    if e.timing is None:
        note = "; no timing, since it ran by interpreter" if e.emulated else ""
        return f"correct{note}"
    s = e.timing.speedup
    low, high = s.ci99
    return f"correct, {s.ratio:.3f}x {s.vs} ({low:.3f} to {high:.3f}, {s.verdict}), {e.timing.score_us:.1f} us"


def report(identity: str, evidence: Evidence, **rest: Any) -> api.Report:
    """The bounded, clean report."""
    status, summary = decide(evidence)
    return bounded(
        api.Report(
            schema=1,
            id=identity,
            status=status,
            summary=clean(summary, TEXT),
            level=evidence.evaluation.options.level,
            failure=evidence.failure,
            static=evidence.static,
            build=evidence.build,
            correctness=evidence.correctness,
            timing=evidence.timing,
            kernels=evidence.kernels,
            **rest,
        )
    )


def compile_error(identity: str, evaluation: Evaluation, build: api.Build, static: api.Static) -> api.Report:
    return report(identity, Evidence(evaluation, static=static, build=build))


def ended(identity: str, status: api.Status, message: str, level: str = "check") -> api.Report:
    """A report without a verdict on the candidate: `infra_error`, `cancelled`, or a `timeout` seen from outside."""
    return api.Report(schema=1, id=identity, status=status, summary=clean(message, TEXT), level=level)


def clean(text: str, limit: int = TEXT) -> str:
    """Untrusted text made harmless: no control characters, no lone surrogates, cut in the middle."""
    kept = "".join(c if c == "\n" or _printable(c) else "�" for c in text)
    if len(kept) > limit:
        kept = f"{kept[: limit // 2]} … {kept[-limit // 2 :]}"
    return kept.replace("\n", " ⏎ ")


def _printable(character: str) -> bool:
    code = ord(character)
    return not (code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in {0xFFFE, 0xFFFF})  # noqa: PLR2004


def bounded(whole: api.Report) -> api.Report:
    """Every string clean, and the whole within 256 KiB: the logs go first."""
    data = _cleaned(whole.model_dump(mode="json", by_alias=True))
    result = api.Report.model_validate(data)
    if len(result.model_dump_json(by_alias=True).encode()) <= MOST_BYTES:
        return result
    return result.model_copy(update={"logs": api.Logs(), "static": api.Static(), "kernels": None})


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value, LOG)
    if isinstance(value, Mapping):
        return {clean(str(k), 200): _cleaned(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in value]
    return value
