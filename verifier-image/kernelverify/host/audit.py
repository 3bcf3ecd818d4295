"""Is the problem itself sound? Zeros, a constant, another input's or other weights' output must all fail."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kernelverify.host import correctness, inputs, memory, reference
from kernelverify.host.session import Session
from kernelverify_api import request
from kernelverify_api.report import AuditReport, Finding

BY_OURS, BY_1E4, BY_1E2 = "ours", "kernelbench_1e-4", "kernelbench_1e-2"


def audit(asked: request.Problem, seed: int | None = None) -> AuditReport:
    """Try the answers that need no work. Raises ProblemError when the problem cannot even be read."""
    session = Session(asked, seed)
    own, flipped = ([draw for _, draw in session.draws(gates)] for gates in (inputs.OWN[:2], inputs.FLIPPED))
    findings = [*_disagreement(session, own[0]), *_shortcuts(session, own, flipped)]
    sound = not any(f.criterion in {BY_OURS, BY_1E4} for f in findings)
    return AuditReport(schema=1, problem=asked.name, sound=sound, findings=tuple(findings))


def _disagreement(session: Session, draw: reference.Draw) -> Iterator[Finding]:
    again = memory.flatten(session.loaded.forward(session.model, draw.inputs))[1]
    if not correctness.right(draw, again):
        evidence = "two runs of the reference on the same inputs and weights differ by more than is allowed"
        yield Finding(kind="self_disagreement", criterion=BY_OURS, evidence=evidence)


def _shortcuts(session: Session, own: Sequence[reference.Draw], flipped: Sequence[reference.Draw]) -> Iterator[Finding]:
    first, second = own[0], own[-1]
    zeros = {id(d): [torch.zeros_like(t) for t in d.eager] for d in [*own, *flipped]}
    yield from _found(
        "zeros", "an answer of zeros passes", first, zeros[id(first)], [(d, zeros[id(d)]) for d in flipped]
    )
    constant = [torch.full_like(t, _middle(t)) for t in second.eager]
    alike = [(d, constant) for d in flipped]
    yield from _found("constant", "a constant (another draw's mean) passes", first, constant, alike)
    yield from _found(
        "other_input", "another input's answer passes", first, second.eager, [(d, second.eager) for d in flipped]
    )
    yield from _other_weights(session, first, flipped)


def _other_weights(session: Session, first: reference.Draw, flipped: Sequence[reference.Draw]) -> Iterator[Finding]:
    if not any(True for _ in session.model.parameters()):
        return
    other = session.loaded.make_model(session.draw_seed())
    if all(torch.equal(a, b) for a, b in zip(session.model.parameters(), other.parameters(), strict=True)):
        return  # weights that are no draw (zeros, ones) cannot differ

    def answer(draw: reference.Draw) -> list[Tensor]:
        return memory.flatten(session.loaded.forward(other, draw.inputs))[1]

    alike = [(d, answer(d)) for d in flipped]
    yield from _found("other_weights", "other weights' answer passes", first, answer(first), alike)


def _found(
    kind: str,
    text: str,
    draw: reference.Draw,
    answer: list[Tensor],
    flipped: Sequence[tuple[reference.Draw, list[Tensor]]],
) -> Iterator[Finding]:
    """By our criterion an answer must pass every gate; by KernelBench's only its own inputs count."""
    if any(a.shape != b.shape for a, b in zip(answer, draw.eager, strict=True)):
        return
    if correctness.right(draw, answer) and all(correctness.right(d, a) for d, a in flipped):
        yield _finding(kind, BY_OURS, text)
    for bound, close in correctness.kernelbench(draw, answer).items():
        if close:
            yield _finding(kind, f"kernelbench_{bound}", f"{text} at atol = rtol = {bound}")


def _finding(kind: str, criterion: str, evidence: str) -> Finding:
    return Finding.model_validate({"kind": kind, "criterion": criterion, "evidence": evidence})


def _middle(tensor: Tensor) -> float:
    return float(tensor.double().mean()) if tensor.numel() else 0.0
