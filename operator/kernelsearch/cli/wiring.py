"""From what a KernelSearch says to what the loop and the clients take. Pure; every default was set by the models."""

from collections.abc import Mapping
from dataclasses import dataclass

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.problem import Tf32
from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelsearch.clients.model import Sampling
from kernelsearch.report import best
from kernelsearch.search.config import Hardware, SearchConfig
from kernelsearch.search.ports import LiveSpec
from kernelverify_api.report import AuditReport
from kernelverify_api.request import CustomKernel, Language, Options, Problem, TorchOps
from kernelverify_api.service import Capabilities


@dataclass(frozen=True)
class Languages:
    """Kernel languages that are asked for here, and what the user should know about the choice."""

    allowed: tuple[Language, ...]
    note: str = ""


def problem(search: KernelSearch, reference: str) -> Problem:
    """What the verifier is asked about."""
    asked = search.spec.problem
    return Problem(
        source=reference,
        name=search.metadata.name,
        dtype=asked.dtype.value if asked.dtype else None,
        allow_tf32=asked.tf32 is Tf32.ALLOWED,
    )


def options(search: KernelSearch) -> Options:
    """How candidates are judged."""
    kernel = search.spec.kernel
    return Options(
        custom_kernel=CustomKernel(kernel.custom_kernel.value.lower()),
        torch_ops=TorchOps(kernel.torch_ops.value.lower()),
        baselines=search.spec.baselines,
    )


def origin(search: KernelSearch, judged: Problem, beside: str = "") -> best.Origin:
    """For the best kernel's files."""
    asked = options(search)
    how = [f"--custom-kernel {asked.custom_kernel.value}", f"--torch-ops {asked.torch_ops.value}"]
    if judged.dtype:
        how.append(f"--dtype {judged.dtype}")
    if judged.allow_tf32:
        how.append("--allow-tf32")
    return best.Origin(search.metadata.name, judged.source, " ".join(how), beside)


def sampling(search: KernelSearch) -> Sampling:
    """How the model draws its tokens."""
    asked = search.spec.model.sampling
    return Sampling(float(asked.temperature), float(asked.top_p), asked.max_tokens)


def live_spec(search: KernelSearch, deadline: int | None) -> LiveSpec:
    """The budget."""
    budget = search.spec.budget
    return LiveSpec(
        deadline=float(deadline or budget.deadline_seconds),
        max_attempts=budget.max_attempts,
        max_tokens=budget.max_tokens,
        target_speedup=float(budget.target_speedup) if budget.target_speedup else None,
    )


def languages(search: KernelSearch, verifier: Capabilities) -> Languages:
    """Those asked for that can be judged here. Raises InvalidManifestError when none can be."""
    asked = [language.value for language in search.spec.kernel.languages]
    judged = [name for name in asked if name in verifier.languages]
    if not judged:
        raise InvalidManifestError(
            Fault(
                "spec.kernel.languages",
                f"is [{', '.join(asked)}]; the verifier judges {' and '.join(verifier.languages)}: write one of these, "
                "or name another verifier (--verifier-url here, spec.verifiers on a cluster)",
            )
        )
    left = [name for name in asked if name not in judged]
    dropped = [f"kernels in {' and '.join(left)} are not asked for: the verifier cannot judge them"] if left else []
    emulated = [name for name in judged if name in verifier.emulated_languages]
    untimed = [f"{' and '.join(emulated)} runs by interpreter here: checked, never timed"] if emulated else []
    return Languages(tuple(map(Language, judged)), "; ".join(dropped + untimed))


def check_baselines(search: KernelSearch, verifier: Capabilities) -> None:
    """`eager` and `compile` are the verifier's own; any other name is the reference's. Raises InvalidManifestError."""
    for index, name in enumerate(search.spec.baselines):
        if name == "compile" and name not in verifier.baselines:
            remedy = "leave it out, or name another verifier (--verifier-url here, spec.verifiers on a cluster)"
            fault = Fault(f"spec.baselines[{index}]", f'is "compile", which this verifier does not time; {remedy}')
            raise InvalidManifestError(fault)


def hardware(verifier: Capabilities) -> Hardware:
    """The device that kernels are judged on."""
    lane = next((lane for lane in verifier.lanes if lane.ready), verifier.lanes[0] if verifier.lanes else None)
    if lane is None:
        return Hardware("cpu", emulated_languages=verifier.emulated_languages)
    return Hardware(lane.device, lane.name, lane.facts, verifier.emulated_languages)


def degenerate(audit: AuditReport) -> Mapping[str, str] | None:
    """What the audit found wrong with the problem; None for a sound one."""
    if audit.sound or not audit.findings:
        return None
    first, more = audit.findings[0], len(audit.findings) - 1
    evidence = first.evidence + (f" (and {more} more)" if more else "")
    return {"finding": first.kind, "criterion": first.criterion, "evidence": evidence[:500]}


def config(
    search: KernelSearch,
    judged: Problem,
    allowed: tuple[Language, ...],
    verifier: Capabilities,
    model: str,
    unsound: Mapping[str, str] | None,
) -> SearchConfig:
    """The search as the loop takes it."""
    spec, asked = search.spec, options(search)
    return SearchConfig(
        name=search.metadata.name,
        problem=judged,
        languages=allowed,
        hardware=hardware(verifier),
        model=model,
        custom_kernel=asked.custom_kernel,
        torch_ops=asked.torch_ops,
        baselines=spec.baselines,
        chains=spec.search.chains,
        strategy=spec.search.strategy.value,
        seed=spec.search.seed,
        initial_prompt=spec.search.initial_prompt,
        degenerate=unsound,
        grace_seconds=float(spec.budget.grace_period_seconds),
        unavailable_seconds=float(spec.budget.unavailable_seconds),
    )


def not_used_here(search: KernelSearch) -> list[str]:
    """What the manifest asks for and this machine does not do, in sentences."""
    spec, notes = search.spec, []
    if spec.problem.axes:
        notes.append("spec.problem.axes is recorded only: kernels are judged on the reference's own shapes")
    if spec.verifiers.serve and spec.verifiers.serve.replicas > 1:
        notes.append("spec.verifiers.serve.replicas: one verifier runs here, two would spoil each other's timings")
    if spec.archive is not None:
        notes.append("spec.archive is for a cluster: here every attempt is archived beside the other results")
    return notes
