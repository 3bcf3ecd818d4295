"""Conditions, as every Kubernetes object has them: one aspect of the state each."""

from typing import Annotated, Literal

from pydantic import Field

from kernelsearch.api.part import Count, Part, Time


class Condition(Part):
    """One aspect of the state, as `metav1.Condition`."""

    type: str = Field(max_length=316, pattern="^[A-Z][A-Za-z]*$")
    """Which aspect. Of a KernelSearch: Accepted, ModelReady, VerifiersReady, RunnerReady, Progressing, Solved,
    Complete, Suspended and Degraded; of shared objects: Ready and Degraded; of a ModelServer also UpdatePending."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str = Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in a word for programs."""
    message: str = Field(default="", max_length=2048)
    """Why, in a sentence for people, and what to do about it."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: Count | None = None
    """Generation of the spec that this was decided for."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
