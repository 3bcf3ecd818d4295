"""The kind KernelSearch: one problem, one model, one deadline."""

from typing import ClassVar, Literal

from kernelsearch.api.part import Rule
from kernelsearch.api.resource import AGE, NAME_RULE, Metadata, Resource, column, condition
from kernelsearch.api.spec import KernelSearchSpec
from kernelsearch.api.status import KernelSearchStatus

STARTED = "!has(oldSelf.status) || !has(oldSelf.status.startTime)"
FIXED = ("problem", "kernel", "model", "verifiers", "search", "baselines", "queueName", "archive")
"""What cannot change once the search has started: results would no longer be about the same thing."""


def _equal(field: str) -> str:
    """CEL: this part of the spec is as it was, or absent as it was."""
    same = f"self.spec.{field} == oldSelf.spec.{field}"
    (described,) = (each for each in KernelSearchSpec.model_fields.values() if each.alias == field)
    if described.default is not None:
        return same
    return f"has(self.spec.{field}) == has(oldSelf.spec.{field}) && (!has(self.spec.{field}) || {same})"


class KernelSearch(Resource):
    """A search for a fast kernel: a reasoning model proposes, a verifier judges, until the deadline."""

    rules: ClassVar = (
        NAME_RULE,
        Rule(
            f"{STARTED} || ({' && '.join(map(_equal, FIXED))})",
            f"spec.{', spec.'.join(FIXED)} cannot change once the search has started; make a new KernelSearch",
        ),
        Rule(
            f"{STARTED} || (has(self.status) && has(self.status.startTime))",
            "status.startTime cannot be removed: it is what fixes the spec",
        ),
    )
    plural: ClassVar = "kernelsearches"
    short_names: ClassVar = ("ksearch",)
    columns: ClassVar = (
        column("Phase", ".status.phase"),
        column("Speedup", ".status.best.speedup"),
        column("Solved", condition("Solved")),
        column("Attempts", ".status.attempts.total", "integer"),
        # A string, because kubectl prints a date in the future as <invalid>.
        column("Deadline", ".status.deadlineTime"),
        column("Model", ".spec.model.name"),
        AGE,
        column("Correct", ".status.attempts.correct", "integer", wide=True),
        column("Verifiers", condition("VerifiersReady"), wide=True),
        column("Reason", condition("Complete", "reason"), wide=True),
    )

    api_version: Literal["kernelsearch.dev/v1alpha1"]
    """Version of this schema: `kernelsearch.dev/v1alpha1`."""
    kind: Literal["KernelSearch"]
    """`KernelSearch`."""
    metadata: Metadata
    """Kubernetes' object metadata."""
    spec: KernelSearchSpec
    """What is searched for, who is asked, who judges, and until when."""
    status: KernelSearchStatus | None = None
    """Where the search stands. Written by the operator and the runner, never by you."""
