"""The kind VerifierPool: verifiers that many searches share."""

from typing import ClassVar, Literal

from pydantic import Field

from kernelsearch.api.condition import Conditions
from kernelsearch.api.model_server import Namespaces, SharedPhase
from kernelsearch.api.part import SET, Count, Part, Time
from kernelsearch.api.resource import AGE, Metadata, Resource, column, condition
from kernelsearch.api.workload import VerifierWorkload


class VerifierPoolSpec(VerifierWorkload):
    """Which verifiers, how many, and for whom."""

    min_replicas: int = Field(default=1, ge=0, le=64)
    """Pods that stay when nobody uses the pool. Default 1; 0 gives all GPUs back."""
    idle_ttl_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1, alias="idleTTLSeconds")
    """Fall to `minReplicas` when nobody has used the pool for so many seconds. Absent: never."""
    allowed_namespaces: Namespaces = Field(default=(), max_length=64, json_schema_extra=SET)
    """Other namespaces whose searches may use it. Default none: only its own."""


class VerifierPoolStatus(Part):
    """Where the pool stands."""

    phase: SharedPhase | None = None
    """The state in a word, for people: Pending, Starting, Ready, Idle or Failed."""
    conditions: Conditions | None = None
    """The state for programs. `Ready` says that at least one verifier answers, or why none does."""
    observed_generation: Count | None = None
    """Generation of the spec that the operator last acted on."""
    ready_replicas: Count | None = None
    """Verifiers that take evaluations."""
    endpoint: str | None = Field(default=None, max_length=512)
    """Host and port of the headless Service whose addresses are the verifiers."""
    users: Count | None = None
    """Searches that use it now."""
    active_since: Time | None = None
    """When its pods were last started. Absent: they are not running."""
    idle_since: Time | None = None
    """Since when nobody has used it. Absent: somebody does."""


class VerifierPool(Resource):
    """Verifiers on the hardware that kernels are for, shared by many searches."""

    plural: ClassVar = "verifierpools"
    short_names: ClassVar = ("kvpool",)
    columns: ClassVar = (
        column("Phase", ".status.phase"),
        column("Ready", ".status.readyReplicas", "integer"),
        column("Replicas", ".spec.replicas", "integer"),
        column("Device", ".spec.device"),
        column("Users", ".status.users", "integer"),
        AGE,
        column("Reason", condition("Ready", "reason"), wide=True),
    )

    api_version: Literal["kernelsearch.dev/v1alpha1"]
    """Version of this schema: `kernelsearch.dev/v1alpha1`."""
    kind: Literal["VerifierPool"]
    """`VerifierPool`."""
    metadata: Metadata
    """Kubernetes' object metadata."""
    spec: VerifierPoolSpec
    """Which verifiers, how many, and for whom."""
    status: VerifierPoolStatus | None = None
    """Where the pool stands. Written by the operator, never by you."""
