"""How a model or a verifier runs in pods: what shared objects and those owned by one search have in common."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from kernelsearch.api.part import Label, Name, Object, Part, Resource, Rule
from kernelsearch.api.references import KeyRef

Image = Annotated[str, Field(pattern=r"^\S+$", max_length=512)]
Argument = Annotated[str, Field(max_length=4096)]
OPEN: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
"""For `json_schema_extra` of an object whose fields are Kubernetes' own."""

PodTemplate = Annotated[dict[str, Any], Field(json_schema_extra=OPEN)]


class Engine(StrEnum):
    """What serves the model."""

    VLLM = "vllm"
    SGLANG = "sglang"
    CUSTOM = "custom"


class Device(StrEnum):
    """What kernels run on."""

    CUDA = "cuda"
    CPU = "cpu"


class Gpu(Part):
    """Which GPU a verifier gets."""

    resource_name: Resource = "nvidia.com/gpu"
    """Extended resource to ask for. Default: the name that NVIDIA's device plugin gives whole GPUs."""
    count: int = Field(default=1, ge=1, le=16)
    """How many, one lane of evaluations each. Default 1."""
    product: Label = ""
    """Value of the node label `nvidia.com/gpu.product` to insist on, such as `NVIDIA-H100-80GB-HBM3`. Empty (the
    default): any. Speed-ups on different products do not compare."""


class ModelGpu(Part):
    """Which GPUs one replica of a model gets, all on one node."""

    resource_name: Resource = "nvidia.com/gpu"
    """Extended resource to ask for. Default: the name that NVIDIA's device plugin gives whole GPUs."""
    count: int = Field(default=8, ge=1, le=64)
    """How many. Default 8: what DeepSeek-R1 in FP8 needs of a GPU with 141 GB."""
    product: Label = ""
    """Value of the node label `nvidia.com/gpu.product` to insist on. Empty (the default): any."""


class Weights(Part):
    """Where the weights come from."""

    pvc: Object | None = None
    """A PersistentVolumeClaim that holds them, mounted at `/models`. Presets that read `/models` need it. Absent: they
    are in the image, or the engine downloads them into `/tmp`, which holds as much as the chart's `model.scratch`."""
    hf_token_secret_ref: KeyRef | None = None
    """Token for the hub to download them from, given to the engine as `HF_TOKEN`. It also opens the network to it:
    without it nothing can be downloaded, public weights included."""


class ModelWorkload(Part):
    """What serves a model. A `preset` gives everything; each other field overrides its part of it."""

    rules: ClassVar = (
        Rule("has(self.preset) || has(self.image)", "give preset, or image and what else the engine needs"),
    )

    preset: Name | None = None
    """Name of one of the chart's presets (engine, image, arguments, GPUs), such as `r1-fp8-8xh200`. Absent: the other
    fields say everything."""
    engine: Engine | None = None
    """What serves it: `vllm`, `sglang`, or `custom` for any other server of the OpenAI API. Absent: the preset's, else
    `custom`."""
    image: Image | None = None
    """Image of the engine, best by digest. Absent: the preset's."""
    command: tuple[Argument, ...] | None = Field(default=None, min_length=1, max_length=16)
    """Instead of the image's entry point. Absent: the preset's, else the image's."""
    args: tuple[Argument, ...] | None = Field(default=None, max_length=64)
    """Arguments of the engine. Absent: the preset's."""
    port: int | None = Field(default=None, ge=1024, le=65535)
    """Port of its OpenAI API. Absent: the preset's, else 8000."""
    gpu: ModelGpu | None = None
    """GPUs of one replica. Absent: the preset's, else none."""
    weights: Weights = Weights()
    """Where the weights come from. Default: the engine finds them itself."""
    pod_template: PodTemplate = Field(default={})
    """Parts of a pod template to merge in: labels, annotations, nodeSelector, tolerations, affinity,
    topologySpreadConstraints, priorityClassName, schedulerName, imagePullSecrets, runtimeClassName, volumes (claims,
    ConfigMaps, emptyDir), and resources, env and volumeMounts of the one container. An amount of CPU or memory under
    limits or requests alone stands for both. Anything else is refused, GPUs too: they have a field of their own."""

    @model_validator(mode="after")
    def _something_to_run(self) -> Self:
        if self.preset is None and self.image is None:
            raise ValueError("neither preset nor image is given; give a preset, or an image and what else it needs")
        return self


class VerifierWorkload(Part):
    """What judges kernels."""

    rules: ClassVar = (Rule("self.device == 'cuda' || !has(self.gpu)", "gpu belongs to device: cuda"),)

    replicas: int = Field(default=1, ge=1, le=64)
    """How many pods. Default 1: a verifier is busy 4 to 18 % of the time behind one reasoning model, so that one serves
    dozens of chains."""
    device: Device = Device.CUDA
    """What kernels run on. Default `cuda`; `cpu` judges C++ fully and Triton by interpreter, without times."""
    gpu: Gpu | None = None
    """Which GPU, for device `cuda`. Absent: any whole NVIDIA GPU. A GPU is never shared between two verifiers."""
    image: Image | None = None
    """Image of the verifier. Absent: the installation's own."""
    runtime_class_name: Object | None = None
    """RuntimeClass of the pods, such as gVisor's, for one more wall around candidates. Absent: the installation's."""
    pod_template: PodTemplate = Field(default={})
    """Parts of a pod template to merge in, as for a model; anything else is refused."""

    @model_validator(mode="after")
    def _gpu_for_cuda(self) -> Self:
        if self.gpu is not None and self.device is not Device.CUDA:
            raise ValueError(f"gpu is given and device is {self.device.value}; leave gpu out, or write device: cuda")
        return self
