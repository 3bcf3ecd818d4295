"""Who judges kernels: verifiers on the hardware that the kernels are for."""

from typing import ClassVar

from kernelsearch.api.part import Part
from kernelsearch.api.references import ObjectRef
from kernelsearch.api.workload import VerifierWorkload


class VerifierServe(VerifierWorkload):
    """A VerifierPool owned by this search: it starts with the search, has its name, and goes with it."""


class Verifiers(Part):
    """Who judges kernels. Exactly one of `poolRef` and `serve`."""

    one_of: ClassVar = ("poolRef", "serve")

    pool_ref: ObjectRef | None = None
    """A VerifierPool that other searches may use too."""
    serve: VerifierServe | None = None
    """Verifiers owned by this search; with `kernelsearch run -f`, one on this machine."""
