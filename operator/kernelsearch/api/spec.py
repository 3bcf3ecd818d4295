"""What a search is asked to do: the `spec` of a KernelSearch.

Defaults stand here and nowhere else: the API server writes them into stored objects, `kernelsearch run -f` reads them
from these same models. Everything the reader needs to know about a field is its docstring.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from kernelsearch.api.model import Model
from kernelsearch.api.part import (
    LOCATION,
    MANAGER,
    SET,
    FractionOrNothing,
    Label,
    Part,
    Rule,
    Unique,
    Word,
)
from kernelsearch.api.problem import Problem
from kernelsearch.api.references import SecretRef
from kernelsearch.api.verifiers import Verifiers


class Language(StrEnum):
    """A language that kernels are written in."""

    TRITON = "triton"
    CUDA = "cuda"
    CPP = "cpp"


class CustomKernel(StrEnum):
    """Whether a candidate must hold a kernel of its own."""

    REQUIRED = "Required"
    OPTIONAL = "Optional"


class TorchOps(StrEnum):
    """What is done about torch's compute operators inside a candidate's `forward`."""

    ALLOW = "Allow"
    REPORT = "Report"
    FORBID = "Forbid"


class Strategy(StrEnum):
    """How chains divide the work."""

    SERIAL = "Serial"
    BEST_OF_N = "BestOfN"
    ADAPTIVE = "Adaptive"


class Kernel(Part):
    """What counts as a kernel."""

    languages: Annotated[tuple[Language, ...], Unique] = Field(
        default=(Language.TRITON, Language.CUDA), min_length=1, max_length=3, json_schema_extra=SET
    )
    """Languages that kernels may be written in, the preferred one first. Default `triton` and `cuda`, for GPUs; `cpp`
    is for CPU verifiers."""
    custom_kernel: CustomKernel = CustomKernel.REQUIRED
    """Whether a kernel of its own must cause the candidate's answer. Default `Required`: a candidate that only calls
    torch is no kernel."""
    torch_ops: TorchOps = TorchOps.REPORT
    """What is done about torch's compute operators inside `forward`. Default `Report`: they are counted and shown, and
    the model is told; `Forbid` makes them an error."""


class Search(Part):
    """How the model is asked."""

    chains: int = Field(default=8, ge=1, le=128)
    """Lines of work side by side. Default 8: a model server batches them almost for free, and one chain of a reasoning
    model makes three to five attempts in 20 minutes. `Serial` uses one."""
    strategy: Strategy = Strategy.BEST_OF_N
    """How chains divide the work. `Serial`: one chain of refinement. `BestOfN` (default): chains start apart, repair
    their failures, and improve the best kernel once there is one. `Adaptive`: runs as `BestOfN` for now."""
    initial_prompt: str = Field(default="", max_length=16 * 1024)
    """Your own words, put into every first prompt: ideas, facts about the data, what to avoid. Default none."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Makes the strategy's choices repeatable; the model's answers and the judge's inputs are not. Default 0."""


class Budget(Part):
    """When the search ends. Seconds are on the search clock, which stands during start-up and while suspended."""

    deadline_seconds: int = Field(default=900, ge=1, le=30 * 86400)
    """Length of the search in seconds. Default 900, as in the workflow that this comes from. No attempt starts later;
    a correct kernel found by then makes the search a success."""
    startup_deadline_seconds: int = Field(default=3600, ge=1, le=7 * 86400)
    """Seconds that model, verifiers and runner may take to become ready, queueing excluded. Default 3600: the weights
    of a large model take tens of minutes to load."""
    grace_period_seconds: int = Field(default=60, ge=0, le=3600)
    """Seconds that evaluations in flight at the deadline may still take. Default 60: a build and a timing."""
    unavailable_seconds: int = Field(default=600, ge=1, le=86400)
    """The search ends when the model, or every verifier, was unavailable for so long. Default 600: longer than a node
    takes to be replaced."""
    max_attempts: int = Field(default=0, ge=0, le=1_000_000)
    """Attempts at most. Default 0: no limit."""
    max_tokens: int = Field(default=0, ge=0, le=10**12, json_schema_extra={"format": "int64"})
    """Tokens at most, prompts and answers together. Default 0: no limit."""
    target_speedup: FractionOrNothing = ""
    """End as soon as a kernel is verified to be so many times as fast as the fastest baseline, such as "2.5". Default
    empty: use the whole time."""


class ArchiveSpec(Part):
    """Where every attempt is kept whole: prompt, thought, answer, reports."""

    url: Annotated[str, Field(pattern=LOCATION, max_length=2048)]
    """Directory on a mounted volume, or any fsspec URL."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with the credentials of the storage. Absent: none are needed."""


class KernelSearchSpec(Part):
    """What is searched for, who is asked, who judges, and until when."""

    problem: Problem
    """What is to be made faster."""
    kernel: Kernel = Kernel()
    """What counts as a kernel."""
    model: Model
    """Who is asked for kernels."""
    verifiers: Verifiers
    """Who judges them."""
    search: Search = Search()
    """How the model is asked."""
    baselines: Annotated[tuple[Word, ...], Unique] = Field(
        default=("eager",), min_length=1, max_length=8, json_schema_extra=SET
    )
    """What a kernel must be faster than; the fastest of them counts. `eager`, `compile` (torch.compile), or a name from
    the reference's `get_baselines()`, such as `flexAttention`. Default `eager`."""
    budget: Budget = Budget()
    """When the search ends."""
    suspend: bool = False
    """Pause: attempts in flight are dropped, GPUs go back, the search clock stands. Default false."""
    stop: bool = False
    """End now and keep the results. Default false."""
    queue_name: Label = ""
    """Kueue's local queue for the pods of this search. Default empty: they are not queued. Refused for now."""
    managed_by: Annotated[
        str,
        Field(
            pattern=MANAGER,
            max_length=253,
            json_schema_extra={
                "x-kubernetes-validations": [Rule("self == oldSelf", "managedBy cannot change").as_schema()]
            },
        ),
    ] = ""
    """Name of another controller that manages this object, such as MultiKueue's; ours then leaves it alone. Default
    empty: ours manages it. Immutable."""
    archive: ArchiveSpec | None = None
    """Where every attempt is kept whole. Absent: only the best kernel and the counts are kept; `kernelsearch run -f`
    always archives beside its other results. Refused on a cluster for now."""
    retain_best: bool = False
    """Keep the ConfigMap with the best kernel when this object is deleted. Default false."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Delete this object so many seconds after its end; 0 means at once. Absent: keep it."""

    changeable: ClassVar[tuple[str, ...]] = ("budget", "suspend", "stop", "retainBest", "ttlSecondsAfterFinished")
    """Fields that may change while a search runs."""
