"""What a client asks the verifier: a problem, a candidate, and how far to go."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_SOURCE = 256 * 1024
"""Longest source text accepted, in characters. The longest kernels of the public corpora are under 60 kB."""

Source = Annotated[str, Field(max_length=MAX_SOURCE)]
LEAST_SEED, MOST_SEED = -(1 << 63), (1 << 64) - 1
"""What `torch.manual_seed` takes."""
Seed = Annotated[int, Field(ge=LEAST_SEED, le=MOST_SEED)]


class Message(BaseModel):
    """Base of everything on the wire: frozen, and an unknown field is an error at the sender's side."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Level(StrEnum):
    """How far an evaluation goes; each level contains the one before."""

    CHECK = "check"
    """Static checks, build, correctness, ablation. No timing."""
    FULL = "full"
    """`check`, and timing against the baselines."""
    CHAMPION = "champion"
    """`full` in a fresh pair of processes on new draws, and the warning sets. Its figure is the recorded one."""


class CustomKernel(StrEnum):
    """Whether the candidate must contain a kernel of its own or may only call torch."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class TorchOps(StrEnum):
    """What is done about torch compute operators inside the candidate's `forward`."""

    ALLOW = "allow"
    REPORT = "report"
    FORBID = "forbid"


class Language(StrEnum):
    """The kernel language a candidate is written in."""

    TRITON = "triton"
    CUDA = "cuda"
    CPP = "cpp"


class Problem(Message):
    """A KernelBench-style reference module and how it is to be read."""

    source: Source
    """Python text that defines `Model`, `get_inputs()` and `get_init_inputs()`; optionally `get_baselines()`."""
    name: str = Field(default="problem", max_length=253)
    """For people; shows up in messages, never in decisions."""
    dtype: str | None = Field(default=None, pattern="^(float32|float16|bfloat16)$")
    """Cast float inputs and weights to this; absent means whatever the reference makes."""
    allow_tf32: bool = False
    """Whether references, baselines and tolerance admit TF32 matrix products."""


class Options(Message):
    """How a candidate is judged. The defaults are the strict ones."""

    level: Level = Level.CHECK
    custom_kernel: CustomKernel = CustomKernel.REQUIRED
    torch_ops: TorchOps = TorchOps.REPORT
    baselines: tuple[str, ...] = Field(default=("eager",), max_length=8)
    """Names to time against: `eager`, `compile`, or a name from the problem's `get_baselines()`."""
    timeout_s: float = Field(default=300.0, gt=0, le=3600)
    """Bound on the whole evaluation, in seconds, queueing excluded."""
    seed: Seed | None = None
    """Fixes the referee's draws, for debugging by hand. Absent in real use: a known seed is a known answer."""
    fresh: bool = False
    """Do not share a result that an identical submission already earned."""


class Evaluation(Message):
    """One submission: POST /v1/evaluations."""

    problem: Problem
    source: Source
    """The candidate: Python text that defines `ModelNew`."""
    language: Language | None = None
    """What the client believes the language is; only reported."""
    options: Options = Options()
    client: str = Field(default="anonymous", max_length=253)
    """Who asks, for fairness between clients."""
    idempotency_key: str | None = Field(default=None, max_length=128)
    """A second submission under the same key and client returns the first one's id."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Seconds from receipt after which the job is cancelled. Relative, since clocks differ."""


class Audit(Message):
    """Is the problem itself sound? POST /v1/audits."""

    problem: Problem
    seed: Seed | None = None
