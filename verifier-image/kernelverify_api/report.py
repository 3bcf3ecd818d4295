"""What the verifier answers: one report per evaluation, schema 1.

Strings that come from a candidate are untrusted: truncated, control characters stripped. A report never holds seeds,
draws of future checks, or more expected values than the at most eight samples in `worst`.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from kernelverify_api.request import Message

SCHEMA = 1


class Status(StrEnum):
    """The verdict. Everything but the last two is the candidate's doing."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    COMPILE_ERROR = "compile_error"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    REWARD_HACK = "reward_hack"
    SUSPICIOUS = "suspicious"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """Where an evaluation is. The terminal ones are `done`, `failed` (bad request), `cancelled`, `infra_error`."""

    QUEUED = "queued"
    STATIC = "static"
    BUILDING = "building"
    WAITING = "waiting"
    CHECKING = "checking"
    TIMING = "timing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INFRA_ERROR = "infra_error"


class Static(Message):
    """Findings of the abstract-syntax rules: friendly and early, evidence only."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class BuildMessage(Message):
    """One compiler error, with the offending source line in `message` where the compiler showed it."""

    file: str
    line: int | None = None
    message: str


class BuiltKernel(Message):
    """What the compiler said about one kernel; sizes in bytes. Only CUDA builds know registers, shared and spills."""

    name: str
    registers: int | None = None
    shared: int | None = None
    spills: int | None = None


class Build(Message):
    ok: bool
    seconds: float = 0.0
    cache_hit: bool = False
    errors: tuple[BuildMessage, ...] = ()
    kernels: tuple[BuiltKernel, ...] = ()


class Sample(Message):
    """One element that is off: its index and the two values, as text so that NaN and Inf survive JSON."""

    index: tuple[int, ...]
    got: str
    want: str


class SetResult(Message):
    """One input set, judged."""

    name: str
    """`own`, `flipped`, `flipped_small`, or a warning set's name."""
    ok: bool
    reason: str = ""
    """Why not, in words: `shape (2, 3) where (3, 2) is expected`, `input modified`, ..."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Shapes of the tensor inputs."""
    normwise: float | None = None
    """‖candidate − reference‖ / ‖reference‖ of the worst output."""
    normwise_allowed: float | None = None
    share_of_limit: float | None = None
    """Largest error as a share of its limit; above 1 is a rejection."""
    max_abs: float | None = None
    max_abs_allowed: float | None = None
    mismatch_fraction: float | None = None
    """Share of elements beyond the elementwise limit."""
    worst: tuple[Sample, ...] = Field(default=(), max_length=8)
    pattern: str = ""
    """Where the errors lie: `all`, `row tail`, `last tile`, `transposed`, `nan`, `scattered`, ..."""


class DroppedGate(Message):
    name: str
    reason: str


class Correctness(Message):
    ok: bool
    reference: Literal["fp64", "fp32"] = "fp64"
    precision_checked: bool = True
    """False when a sign-flipped gate was dropped, so that low precision inside may have gone unseen."""
    gates_dropped: tuple[DroppedGate, ...] = ()
    sets: tuple[SetResult, ...] = ()
    warnings: tuple[SetResult, ...] = ()
    """Sets that inform and never decide (champion only)."""
    precision_class: str = ""
    """What the error looks like: `fp32`, `tf32`, `fp16`, `bf16`, or empty when there is too little to tell."""
    deterministic: bool | None = None
    kernelbench_allclose: dict[str, bool] = Field(default_factory=dict)
    """KernelBench's own criterion at `1e-4` and `1e-2`, so that results compare with published ones."""


class Speedup(Message):
    """The paired test of candidate against one baseline. `ratio` > 1 means the candidate is faster."""

    vs: str
    ratio: float
    ci99: tuple[float, float]
    pairs: int
    verdict: Literal["faster", "slower", "same", "ambiguous"]


class Roofline(Message):
    """The least time that memory and arithmetic allow, in microseconds, and what bounds the problem."""

    floor_us: float
    bound: Literal["memory", "compute", "launch"]
    fraction: float
    """floor / score: 1 is perfect."""


class Timing(Message):
    score_us: float
    gpu_us: float | None = None
    referee_us: float
    baselines: dict[str, float]
    """Median time per call in microseconds, by baseline."""
    speedup: Speedup
    """Against the fastest baseline: the figure that counts."""
    speedups: tuple[Speedup, ...] = ()
    """Against each baseline, the fastest included."""
    freshness: str = ""
    """How fresh the timed inputs were: `draw per pair` or `pool of N`, and whether their signs were changed by axis."""
    roofline: Roofline | None = None
    device_state: dict[str, str] = Field(default_factory=dict)


class Kernels(Message):
    """The causal test for custom kernels, and what torch was asked to do."""

    ablation: dict[str, Literal["wrong", "error", "right", "skipped"]] = Field(default_factory=dict)
    """By mode (`zeros`, `ones`, `raise`, `part`, and `timed` between timed calls): what the candidate answered with its
    kernels disabled. `right` is a cheat."""
    custom_launched: tuple[str, ...] = ()
    torch_ops: dict[str, int] = Field(default_factory=dict)
    """Torch operators on large tensors inside `forward`, with their number of calls."""


class Flag(Message):
    rule: str
    severity: Literal["info", "warning", "critical"]
    evidence: str


class Integrity(Message):
    flags: tuple[Flag, ...] = ()
    clocks_agree: bool | None = None
    sandbox: dict[str, str] = Field(default_factory=dict)
    """What was really active: `landlock: abi 7`, `seccomp: on`, `uid: own`, ..."""


class Environment(Message):
    device: str
    driver: str = ""
    torch: str
    triton: str = ""
    emulated: bool = False
    """True when a kernel ran by interpreter or emulator: right answers, meaningless times."""


class Logs(Message):
    stdout: str = ""
    stderr: str = ""


class Failure(Message):
    """Why there was no answer to judge: the candidate raised, died or ran out of time."""

    kind: str
    """An exception's type, a signal's name, `timeout`, `memory`, `protocol`, ..."""
    stage: str
    """`import`, `construct`, `load_state`, `forward`, `exit`, ..."""
    message: str = ""
    line: int | None = None
    """Line of the candidate's source, where known."""
    source_line: str = ""


class Report(Message):
    """The whole answer. `summary` states the most useful fact first."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    id: str
    status: Status
    summary: str
    level: str = "check"
    failure: Failure | None = None
    static: Static = Static()
    build: Build | None = None
    correctness: Correctness | None = None
    timing: Timing | None = None
    kernels: Kernels | None = None
    integrity: Integrity = Integrity()
    environment: Environment | None = None
    logs: Logs = Logs()
    stages_ms: dict[str, float] = Field(default_factory=dict)


class Finding(Message):
    """One thing that is wrong with a problem."""

    kind: Literal["zeros", "constant", "other_input", "other_weights", "self_disagreement", "unreadable"]
    criterion: Literal["ours", "kernelbench_1e-4", "kernelbench_1e-2"]
    evidence: str


class AuditReport(Message):
    """Answer of an audit. `sound` is false for findings under `ours` or `kernelbench_1e-4`."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    problem: str
    sound: bool
    findings: tuple[Finding, ...] = ()
