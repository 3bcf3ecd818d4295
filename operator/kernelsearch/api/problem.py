"""What is to be made faster: a PyTorch reference, given in one of three ways."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from kernelsearch.api.part import ATOMIC, Location, Part
from kernelsearch.api.references import KeyRef, SecretRef

MAX_REFERENCE = 64 * 1024
"""Characters. Equality of two such texts still passes the API server's cost limit for rules; KernelBench's longest
reference has 12,000."""


class Dtype(StrEnum):
    """A floating point type of inputs and weights."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Tf32(StrEnum):
    """Whether TF32 matrix products count as float32."""

    FORBIDDEN = "Forbidden"
    ALLOWED = "Allowed"


class Inline(Part):
    """The reference, in the manifest itself."""

    reference: str = Field(min_length=1, max_length=MAX_REFERENCE)
    """Python text of a KernelBench-style module: defines `Model`, `get_inputs()` and `get_init_inputs()`; optionally
    `get_baselines()`, which names further implementations to be faster than."""


class KernelBenchSource(Part):
    """A copy of the KernelBench data set."""

    url: Location
    """Directory that holds `level1/`, `level2/`, ...: a path on a mounted volume, or any fsspec URL."""
    credentials_secret_ref: SecretRef | None = None
    """Secret with the credentials of the storage. Absent: none are needed."""


class KernelBench(Part):
    """One problem of KernelBench."""

    level: int = Field(ge=1, le=9)
    """Level of the problem, from 1."""
    id: int = Field(ge=1, le=10_000)
    """Number of the problem within its level: 23 is the file `23_*.py`."""
    source: KernelBenchSource
    """Where the data set lies."""


Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1, max_length=8, json_schema_extra=ATOMIC)]


class Problem(Part):
    """What is to be made faster. Exactly one of `inline`, `configMapRef` and `kernelBench` names the reference."""

    one_of: ClassVar = ("inline", "configMapRef", "kernelBench")

    inline: Inline | None = None
    """The reference, in the manifest itself."""
    config_map_ref: KeyRef | None = None
    """The same text, in a ConfigMap of this namespace; with `kernelsearch run -f`, in the file
    `<--config-dir>/<name>/<key>`."""
    kernel_bench: KernelBench | None = None
    """A problem of the KernelBench data set. Refused on a cluster for now."""
    dtype: Dtype | None = None
    """Cast inputs and weights to this. Absent: they stay as the reference makes them."""
    tf32: Tf32 = Tf32.FORBIDDEN
    """Whether reference, baselines and tolerance admit TF32 matrix products. Default `Forbidden`, because a kernel that
    drops 13 of 23 mantissa bits is faster for a reason nobody asked for."""
    axes: dict[str, Sizes] = Field(default={}, max_length=8)
    """Sizes that may vary: names of upper case constants of the reference, each with further values on which a kernel
    must be right too. Default none: only the reference's own shapes count. Recorded, not judged by yet."""
