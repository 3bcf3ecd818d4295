"""The kind KernelSearch: one problem, one model, one deadline."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from kernelsearch.api.part import NAME, Name, Part, Rule
from kernelsearch.api.spec import KernelSearchSpec
from kernelsearch.api.status import KernelSearchStatus

GROUP = "kernelsearch.dev"
VERSION = "v1alpha1"


class Metadata(Part):
    """The part of Kubernetes' object metadata that matters here; the rest is taken as it comes."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """Name of the search. At most 40 characters: children get suffixes, and a dot is refused in a Service's name."""


class KernelSearch(Part):
    """A search for a fast kernel: a reasoning model proposes, a verifier judges, until the deadline."""

    rules: ClassVar = (
        Rule(
            f"self.metadata.name.size() <= 40 && self.metadata.name.matches('{NAME}')",
            "metadata.name: at most 40 lower case letters, digits and '-', beginning with a letter",
        ),
    )
    plural: ClassVar = "kernelsearches"
    short_names: ClassVar = ("ksearch",)
    columns: ClassVar[tuple[dict[str, Any], ...]] = (
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Speedup", "type": "string", "jsonPath": ".status.best.speedup"},
        {"name": "Solved", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Solved")].status'},
        {"name": "Attempts", "type": "integer", "jsonPath": ".status.attempts.total"},
        # A string, because kubectl prints a date in the future as <invalid>.
        {"name": "Deadline", "type": "string", "jsonPath": ".status.deadlineTime"},
        {"name": "Model", "type": "string", "jsonPath": ".spec.model.name"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Correct", "type": "integer", "jsonPath": ".status.attempts.correct", "priority": 1},
        {
            "name": "Verifiers",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="VerifiersReady")].status',
            "priority": 1,
        },
        {
            "name": "Reason",
            "type": "string",
            "jsonPath": '.status.conditions[?(@.type=="Complete")].reason',
            "priority": 1,
        },
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
