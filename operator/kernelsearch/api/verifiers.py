"""Who judges kernels: verifiers on the hardware that the kernels are for."""

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, model_validator

from kernelsearch.api.part import Label, Part, Resource, Rule
from kernelsearch.api.references import ObjectRef


class Device(StrEnum):
    """What kernels run on."""

    CUDA = "cuda"
    CPU = "cpu"


class Gpu(Part):
    """Which GPU a verifier gets; always a whole one, always one."""

    resource_name: Resource = "nvidia.com/gpu"
    """Extended resource to ask for. Default: the name that NVIDIA's device plugin gives whole GPUs."""
    product: Label = ""
    """Value of the node label `nvidia.com/gpu.product` to insist on, such as `NVIDIA-H100-80GB-HBM3`. Empty (the
    default): any. Speed-ups on different products do not compare."""


class VerifierServe(Part):
    """Verifiers owned by this search."""

    rules: ClassVar = (Rule("self.device == 'cuda' || !has(self.gpu)", "gpu belongs to device: cuda"),)

    replicas: int = Field(default=1, ge=1, le=64)
    """How many, one device each. Default 1: a verifier is busy 4 to 18 % of the time behind one reasoning model, so
    that one serves dozens of chains."""
    device: Device = Device.CUDA
    """What kernels run on. Default `cuda`; `cpu` judges C++ fully and Triton by interpreter, without times."""
    gpu: Gpu | None = None
    """Which GPU, for device `cuda`. Absent: any whole NVIDIA GPU."""

    @model_validator(mode="after")
    def _gpu_for_cuda(self) -> Self:
        if self.gpu is not None and self.device is not Device.CUDA:
            raise ValueError(f"gpu is given and device is {self.device.value}; leave gpu out, or write device: cuda")
        return self


class Verifiers(Part):
    """Who judges kernels. Exactly one of `poolRef` and `serve`."""

    one_of: ClassVar = ("poolRef", "serve")

    pool_ref: ObjectRef | None = None
    """A VerifierPool that other searches may use too."""
    serve: VerifierServe | None = None
    """Verifiers owned by this search; with `kernelsearch run -f`, one on this machine."""
