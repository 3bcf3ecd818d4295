"""Inputs out of, and outputs into, the memory that the referee shares (host/memory.py is the other side).

Nothing here is trusted: the referee keeps its own layout and never interprets what this side says beyond comparing it.
"""

import json
import mmap
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernelverify import ipc


@dataclass(frozen=True)
class Mapped:
    """A region as seen here: live tensors over shared memory, and the tree that they are the leaves of."""

    skeleton: Any
    tensors: tuple[Tensor, ...]
    start: int
    """Address of the mapping, to tell whether an output lies in it."""
    size: int

    def tree(self) -> Any:
        """The arguments. Fresh containers each time: a candidate may change a list."""
        return ipc.unpack_tree(self.skeleton, self._leaf)

    def _leaf(self, tag: str, content: Any) -> object:
        match tag:
            case "tensor":
                return self.tensors[content]
            case "dtype":
                return getattr(torch, content)
            case "device":
                return torch.device(content)
        raise ipc.Malformed(f"unknown tag {tag!r} in a skeleton")


def attach(fd: int, size: int, header: Sequence[int], *, writable: bool) -> Mapped:
    """Map a region and close its descriptor. The pages are touched at once, so that no timed call pays for it."""
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapped = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, access)
    os.close(fd)
    head = json.loads(mapped[header[0] : header[0] + header[1]])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        whole = torch.frombuffer(mapped, dtype=torch.uint8)
    tensors = tuple(_as_tensor(whole, placed) for placed in head["layout"])
    return Mapped(head["skeleton"], tensors, whole.data_ptr(), size)


def _as_tensor(whole: Tensor, placed: dict[str, Any]) -> Tensor:
    dtype, shape, stride = getattr(torch, placed["dtype"]), placed["shape"], placed["stride"]
    if not placed["nbytes"]:
        return torch.empty_strided(shape, stride, dtype=dtype)
    raw = whole[placed["offset"] : placed["offset"] + placed["nbytes"]]
    return torch.as_strided(raw.view(dtype), shape, stride)


def flatten(result: object) -> tuple[Any, list[object]]:
    """What `forward` returned, as a skeleton and its tensor-like leaves (subclasses too, untouched)."""
    leaves: list[object] = []

    def leaf(value: object) -> dict[str, Any]:
        if isinstance(value, Tensor):
            leaves.append(value)
            return {"tensor": len(leaves) - 1}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        return {"other": type_name(value)}

    return ipc.pack_tree(result, leaf), leaves


def type_name(value: object) -> str:
    kind = type(value)
    return "torch.Tensor" if kind is Tensor else f"{kind.__module__}.{kind.__qualname__}"[:200]


def deliver(leaf: object, place: Tensor) -> bool:
    """Copy one output into its place, if it is what the referee has room for."""
    if type(leaf) is not Tensor or leaf.layout is not torch.strided or leaf.device.type != "cpu":
        return False  # a lazy subclass would compute when asked for its shape
    if leaf.shape != place.shape or leaf.dtype is not place.dtype:
        return False
    place.copy_(leaf)
    return True


def describe(leaf: object, inputs: Mapped, outputs: Mapped) -> dict[str, Any]:
    """What an output is."""
    return _described(leaf, inputs, outputs) if type(leaf) is Tensor else {"type": type_name(leaf)}


def _described(tensor: Tensor, inputs: Mapped, outputs: Mapped) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "type": "torch.Tensor",
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": str(tensor.device),
        "layout": str(tensor.layout).removeprefix("torch."),
    }
    if tensor.layout is torch.strided:
        meta |= {"stride": list(tensor.stride()), "offset": tensor.storage_offset()}
        if tensor.device.type == "cpu":
            meta["alias_of_input"] = _alias(tensor, inputs)
            meta["alias_of_output"] = _alias(tensor, outputs)
    return meta


def _alias(tensor: Tensor, region: Mapped) -> int | None:
    """Number of the region's tensor whose memory the tensor lies in."""
    address = tensor.data_ptr()
    if not tensor.numel() or not region.start <= address < region.start + region.size:
        return None
    below = [i for i, t in enumerate(region.tensors) if t.numel() and t.data_ptr() <= address]
    return max(below, key=lambda i: region.tensors[i].data_ptr(), default=None)
