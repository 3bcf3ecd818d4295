"""What the model is told about a verdict. Pure: a report becomes words for the next prompt.

| verdict | what the model is told |
| --- | --- |
| compile_error | the first real errors with their source lines, build noise removed |
| incorrect | input set, shapes, error against what is allowed, samples, the pattern in words, the precision class |
| runtime_error, timeout | kind, stage, the source line if known |
| suspicious | what made it implausible, and that it counts only when confirmed |
| correct | time against each baseline, share of the roofline, what bounds it, registers and spills |
| reward_hack | only what a solution must do: naming the rule would teach how to get around it |
| truncated, no_code | what form the answer must have |
| infra_error, cancelled | nothing: asking for words about them is a mistake of the caller |

Never a seed, never a draw of a future check. Everything that a candidate could have written goes through `untrusted`.
"""

import re
from collections.abc import Callable

from kernelsearch.search import untrusted
from kernelverify_api.report import Failure, Report, SetResult, Status, Timing
from kernelverify_api.request import Language

MAX_WORDS = 6000
"""Characters of feedback in a prompt."""
MAX_ERRORS = 4000
"""Characters of compiler errors: the first few are the real ones."""
MAX_SETS = 2
"""Failing input sets that are described; more say the same again."""

MUST = """A solution is accepted only when its own kernel computes the result of `forward` from the inputs of that very
call, every time it is called, on whatever values and with the parameters given to the constructor. The work of the
reference must be done by kernel code that you write, not by PyTorch operators, and nothing may depend on earlier
calls, on being measured, or on the machine around it. Write such a kernel from the reference."""

SET_NAMES = {
    "own": "the problem's own inputs",
    "own_2": "the problem's own inputs",
    "own_3": "the problem's own inputs",
    "flipped": "the problem's own inputs with random signs",
    "flipped_small": "the problem's own inputs with random signs, scaled down by 1024",
}

PATTERNS = {
    "all": "nearly every element is off: the formula itself, or the layout, differs from the reference",
    "nan": "NaN or infinity where the reference is finite: look for overflow (subtract the maximum before exp), "
    "division by zero, or memory that was never written",
    "row tail": "only the ends of rows are off: the length is no multiple of the block, and the tail is not masked or "
    "not processed",
    "last tile": "only the last tile is off: the bounds check of the last block is missing or has the wrong limit",
    "transposed": "the values are right but transposed: indices or strides are swapped",
    "scattered": "single scattered elements are off: a race between threads, or a rare branch",
    "last rows": "only the last rows are off: the number of rows is no multiple of the rows of a block",
    "all, and all zero": "elements are zero that should not be: part of the output is never written",
}

PRECISION = {
    "tf32 or fp16": "The error looks like TF32 or float16 arithmetic inside (10 bits of mantissa); compute and "
    "accumulate in full float32.",
    "tf32": "The error looks like TF32 arithmetic (10 bits of mantissa); full float32 is required.",
    "fp16": "The error looks like float16 arithmetic inside; compute and accumulate in float32.",
    "bf16": "The error looks like bfloat16 arithmetic inside; compute and accumulate in float32.",
}

TF32_DOT = (
    "On this GPU `tl.dot` multiplies float32 in TF32 unless it is called with "
    '`input_precision="ieee"`; cuBLAS and wmma have similar switches.'
)

DISTURBED = "baseline_disturbed"
"""The verifier's rule of a baseline that was slowed while the candidate was there."""

_NOISE = re.compile(
    r"^(ninja: |FAILED: |\[\d+/\d+\] |In file included from|subprocess\.|Traceback|\s*File \"|.*\bwarning:|"
    r"\s*from /|cc1plus:|make(\[\d+\])?:|\S*(c\+\+|g\+\+|nvcc|clang)\s+-)"
)


def words(report: Report, language: str = "") -> str:
    """What the next prompt says about this report. Raises ValueError for infrastructure's failures."""
    tell = _TELL.get(report.status)
    if tell is None:
        raise ValueError(f"nothing is told to a model about {report.status}: the attempt is to be repeated")
    return untrusted.shortened(tell(report, language), MAX_WORDS)


def critical(report: Report) -> set[str]:
    """Rules that make a report suspicious."""
    return {flag.rule for flag in report.integrity.flags if flag.severity == "critical"}


def no_kernel(reason: str) -> str:
    """What the next prompt says about an answer without a kernel. `reason` is ours (`extract.NoKernel`)."""
    return (
        f"The last answer failed to give a kernel: {reason}. Answer with exactly one fenced code block that holds the "
        "whole Python module, imports included, and that defines `class ModelNew`."
    )


def truncated() -> str:
    """What the next prompt says about an answer that ran into the model's own limit."""
    return (
        "The last answer failed to give a kernel: it reached its length limit before the code was complete. Think "
        "briefly this time, choose the simplest design that works, and give the whole module in one fenced code block "
        "right away."
    )


def _compile_error(report: Report, _: str) -> str:
    errors = report.build.errors if report.build else ()
    lines = [_located(error.file, error.line) + _without_noise(error.message) for error in errors]
    if not lines and report.failure:
        return "The code does not compile.\n\n" + _failure(report.failure)
    lines = lines or list(report.static.errors) or [report.summary]
    return "The code does not compile. The first errors:\n\n" + untrusted.quote("\n".join(lines), MAX_ERRORS)


def _incorrect(report: Report, language: str) -> str:
    correctness = report.correctness
    wrong = [each for each in correctness.sets if not each.ok] if correctness else []
    if not wrong:
        return "The result is wrong:\n\n" + untrusted.quote(report.summary, 500)
    first_of_kind = {_set_name(each): each for each in reversed(wrong)}
    described = sorted(first_of_kind.values(), key=wrong.index)[:MAX_SETS]
    parts = ["The code runs, but its result is wrong.", *(_set(each) for each in described)]
    right = {_set_name(each) for each in (correctness.sets if correctness else ()) if each.ok} - set(first_of_kind)
    if right:
        parts.append(f"It is right on {', '.join(sorted(right))}.")
    looks_like = correctness.precision_class if correctness else ""
    if looks_like in PRECISION:
        parts.append(PRECISION[looks_like])
    if "tf32" in looks_like and _on_gpu(report) and language == Language.TRITON:
        parts.append(TF32_DOT)
    if correctness and correctness.deterministic is False:
        parts.append("Equal inputs gave different results in different calls: look for a race or unwritten memory.")
    return "\n\n".join(parts)


def _runtime_error(report: Report, _: str) -> str:
    if report.failure is None:
        return "The code did not run to its end:\n\n" + untrusted.quote(report.summary, 500)
    return "The code failed while it ran.\n\n" + _failure(report.failure)


def _timeout(report: Report, _: str) -> str:
    stage = f" in stage {untrusted.line(report.failure.stage, 40)}" if report.failure else ""
    where = _source_line(report.failure) if report.failure else ""
    return (
        f"The code failed to finish in the time allowed{stage}. Look for an endless loop, a deadlock at a barrier, or "
        "work that grows much faster than the input." + where
    )


def _suspicious(report: Report, _: str) -> str:
    if critical(report) == {DISTURBED}:
        return (
            "The result was right, but its speed is not known yet: the baseline, measured in turn with it, was slowed "
            "down, mostly because the machine was busy. It counts only when a calm measurement confirms it. Leave no "
            "thread or process running after a call."
        )
    parts = ["The result was right, but its measured time is not plausible, so it does not count."]
    roofline = report.timing.roofline if report.timing else None
    if report.timing and roofline:
        parts.append(
            f"Measured: {_us(report.timing.score_us)}; the {roofline.bound} limit of this device allows no less than "
            f"{_us(roofline.floor_us)} for this work."
        )
    else:
        parts.append(untrusted.quote(report.summary, 500))
    parts.append("It counts only when a second measurement confirms it. Do all of the work inside every call.")
    return "\n\n".join(parts)


def _correct(report: Report, _: str) -> str:
    timing = report.timing
    if timing is None:
        return "The kernel is right. It was not timed: its language runs by interpreter on this device."
    parts = ["The kernel is right. " + _times(timing)]
    if timing.roofline:
        share, bound = timing.roofline.fraction, timing.roofline.bound
        parts.append(f"It reaches {share:.0%} of what the device allows; the problem is bound by {_BOUND[bound]}.")
    kernels = report.build.kernels if report.build else ()
    built = [_built(k.name, k.registers, k.shared, k.spills) for k in kernels[:4]]
    if built:
        parts.append("From the compiler: " + "; ".join(built) + ".")
    operators = report.kernels.torch_ops if report.kernels else {}
    if operators:
        listed = ", ".join(f"{untrusted.line(name, 60)} ×{count}" for name, count in list(operators.items())[:8])
        parts.append(f"PyTorch operators on large tensors inside `forward`: {listed}. Move their work into the kernel.")
    return "\n\n".join(parts)


def _reward_hack(_: Report, __: str) -> str:
    return "The last answer was rejected. " + " ".join(MUST.split())


_TELL: dict[Status, Callable[[Report, str], str]] = {
    Status.COMPILE_ERROR: _compile_error,
    Status.INCORRECT: _incorrect,
    Status.RUNTIME_ERROR: _runtime_error,
    Status.TIMEOUT: _timeout,
    Status.SUSPICIOUS: _suspicious,
    Status.CORRECT: _correct,
    Status.REWARD_HACK: _reward_hack,
}

_BOUND = {"memory": "memory bandwidth", "compute": "arithmetic", "launch": "the cost of starting a kernel"}


def _set(result: SetResult) -> str:
    lines = [f"On {_set_name(result)}{_shapes(result)}:"]
    if result.reason:
        lines.append(f"- {untrusted.line(result.reason, 300)}")
    lines += [f"- {text}" for text in _errors(result)]
    if result.pattern:
        lines.append(f"- where: {_pattern(result.pattern)}")
    if result.worst:
        lines.append("- samples:\n" + untrusted.quote("\n".join(map(_sample, result.worst)), 1000))
    return "\n".join(lines)


def _set_name(result: SetResult) -> str:
    return SET_NAMES.get(result.name, untrusted.line(result.name, 60))


def _shapes(result: SetResult) -> str:
    return f" (shapes {', '.join(str(tuple(shape)) for shape in result.shapes[:8])})" if result.shapes else ""


def _errors(result: SetResult) -> list[str]:
    texts = []
    for name, value, allowed in (
        ("largest absolute error", result.max_abs, result.max_abs_allowed),
        ("relative error of the whole output (norms)", result.normwise, result.normwise_allowed),
    ):
        if value is not None:
            texts.append(f"{name}: {value:.3g}" + (f", allowed {allowed:.3g}" if allowed is not None else ""))
    if result.mismatch_fraction:
        texts.append(f"elements beyond the limit: {result.mismatch_fraction:.3%}")
    return texts


def _pattern(pattern: str) -> str:
    """In our words where we have some; the verifier puts its detail (`columns from 320 of 333`) after a comma."""
    whole = untrusted.line(pattern, 200)
    name, _, detail = (part.strip() for part in whole.partition(","))
    if whole in PATTERNS:
        return PATTERNS[whole]
    if name in PATTERNS:
        return f"{PATTERNS[name]} ({detail})"
    return whole


def _sample(sample: object) -> str:
    index = getattr(sample, "index", ())
    got, want = (untrusted.line(str(getattr(sample, name, "")), 40) for name in ("got", "want"))
    return f"index {list(index)}: got {got}, want {want}"


def _failure(failure: Failure) -> str:
    kind, stage = untrusted.line(failure.kind, 60), untrusted.line(failure.stage, 40)
    parts = [f"{kind} in stage {stage}."]
    if failure.message:
        parts.append(untrusted.quote(failure.message, 1500))
    return "\n\n".join(parts) + _source_line(failure)


def _source_line(failure: Failure) -> str:
    if failure.line is None:
        return ""
    shown = f"\n\nAt line {failure.line} of your code"
    return f"{shown}:\n\n{untrusted.quote(failure.source_line, 300)}" if failure.source_line else shown + "."


def _times(timing: Timing) -> str:
    against = timing.speedups or (timing.speedup,)
    figures = [
        f"{each.ratio:.2f} times as fast as {untrusted.line(each.vs, 40)}"
        f" (99 % interval {each.ci99[0]:.2f} to {each.ci99[1]:.2f})"
        for each in against[:4]
    ]
    return f"It takes {_us(timing.score_us)} a call: " + "; ".join(figures) + "."


def _us(microseconds: float) -> str:
    return f"{microseconds:.4g} µs"


def _built(name: str, registers: int | None, shared: int | None, spills: int | None) -> str:
    facts = [
        text
        for value, text in (
            (registers, f"{registers} registers a thread"),
            (shared, f"{shared} bytes of shared memory"),
            (spills, f"{spills} bytes spilled"),
        )
        if value is not None
    ]
    return f"{untrusted.line(name, 60)}: {', '.join(facts) or 'no figures'}"


def _located(file: str, line: int | None) -> str:
    name = file.rsplit("/", 1)[-1]
    return f"{name}:{line}: " if line is not None else f"{name}: "


def _without_noise(message: str) -> str:
    kept = [line for line in message.splitlines() if not _NOISE.match(line)]
    return "\n".join(kept) or message


def _on_gpu(report: Report) -> bool:
    return report.environment is not None and not report.environment.device.lower().startswith("cpu")
