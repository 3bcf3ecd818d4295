"""The kind ModelServer: one expensive server, many searches."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kernelsearch.api.condition import Conditions
from kernelsearch.api.part import MODEL, SET, Count, Namespace, Part, Time, Unique
from kernelsearch.api.resource import AGE, Metadata, Resource, column, condition
from kernelsearch.api.workload import ModelWorkload


class SharedPhase(StrEnum):
    """The state in a word, for people; programs read conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    READY = "Ready"
    IDLE = "Idle"
    FAILED = "Failed"


Namespaces = Annotated[tuple[Namespace, ...], Unique]


class ModelServerSpec(ModelWorkload):
    """Which model is served, by what, and for whom."""

    model: Annotated[str, Field(pattern=MODEL, max_length=253)]
    """Name of the model as the engine lists it, such as `deepseek-ai/DeepSeek-R1-0528`."""
    replicas: int = Field(default=1, ge=1, le=64)
    """How many servers behind one address. Default 1."""
    idle_ttl_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1, alias="idleTTLSeconds")
    """Give the GPUs back when nobody has used it for so many seconds; 0 means at once. The object stays, and the next
    search starts it again. Absent: never."""
    max_lifetime_seconds: int | None = Field(default=None, ge=60, le=2**31 - 1)
    """Give the GPUs back when it has been active for so many seconds, whoever uses it: searches that use it then lose
    their model, and end after their `budget.unavailableSeconds`. It starts again for the first search that comes when
    they are over, or when this spec changes. Absent: never."""
    max_searches: int | None = Field(default=None, ge=1, le=100_000)
    """Searches that may use it at the same time. Absent: no limit; anything else is refused for now."""
    allowed_namespaces: Namespaces = Field(default=(), max_length=64, json_schema_extra=SET)
    """Other namespaces whose searches may use it. Default none: only its own."""


class ModelServerStatus(Part):
    """Where the server stands."""

    phase: SharedPhase | None = None
    """The state in a word, for people: Pending, Starting, Ready, Idle or Failed."""
    conditions: Conditions | None = None
    """The state for programs. `Ready` says that it answers, or why not; `UpdatePending` that its pods are not yet what
    the spec says, because searches use them."""
    observed_generation: Count | None = None
    """Generation of the spec that the operator last acted on."""
    endpoint: str | None = Field(default=None, max_length=512)
    """Base URL of its OpenAI-compatible API."""
    users: Count | None = None
    """Searches that use it now."""
    active_since: Time | None = None
    """When its pods were last started. Absent: they are not running. Kept when `maxLifetimeSeconds` ended them."""
    idle_since: Time | None = None
    """Since when nobody has used it. Absent: somebody does."""


class ModelServer(Resource):
    """A model behind an OpenAI-compatible API, shared by many searches."""

    plural: ClassVar = "modelservers"
    short_names: ClassVar = ("kmodel",)
    columns: ClassVar = (
        column("Phase", ".status.phase"),
        column("Ready", condition("Ready")),
        column("Model", ".spec.model"),
        column("Users", ".status.users", "integer"),
        AGE,
        column("Reason", condition("Ready", "reason"), wide=True),
        column("Endpoint", ".status.endpoint", wide=True),
    )

    api_version: Literal["kernelsearch.dev/v1alpha1"]
    """Version of this schema: `kernelsearch.dev/v1alpha1`."""
    kind: Literal["ModelServer"]
    """`ModelServer`."""
    metadata: Metadata
    """Kubernetes' object metadata."""
    spec: ModelServerSpec
    """Which model is served, by what, and for whom."""
    status: ModelServerStatus | None = None
    """Where the server stands. Written by the operator, never by you."""
