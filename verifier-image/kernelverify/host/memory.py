"""Shared memory between the referee and one other process: where tensors cross the border without being trusted.

A `Region` is a sealed memfd that holds the tensors of one tree. Every tensor lies on a 4 KiB boundary (vector loads
fault on odd offsets that `frombuffer` accepts) and is followed by canary bytes up to the next boundary and one page
beyond, so that a write past its end is seen and a read past its end gets NaN. Zero-element tensors carry no bytes.

    seals       every region: its size is fixed, so that nobody can shrink it under the referee's feet
                input regions: no new writable mapping and no write(); only the referee, who mapped it before, writes
    poison      output bytes before a call: random, NaN in every float type down to 16 bits, no valid bool, different
                each time, so that an output nobody wrote is told from an answer
    trust       sizes, shapes and offsets are the referee's own; nothing is ever read back to interpret the bytes

The other side finds the skeleton and the layout as JSON at `header` (calling/tensors.py reads it).
"""

import fcntl
import json
import mmap
import os
import secrets
from collections.abc import Sequence
from typing import Any, Self, TypedDict

import torch
from torch import Tensor

from kernelverify import ipc

PAGE = 4096
_PATTERN = 16
_F_SEAL_FUTURE_WRITE = 0x0010  # since Linux 5.1; Python 3.11's fcntl does not name it


class TransportError(Exception):
    """A tree that cannot cross: the problem's author must change it, the candidate has no part in it."""


class Placed(TypedDict):
    """Where one tensor lies; the elements from the first to the last take `nbytes` from `offset`."""

    dtype: str
    shape: list[int]
    stride: list[int]
    offset: int
    nbytes: int


def flatten(tree: object) -> tuple[Any, list[Tensor]]:
    """A tree as its skeleton (JSON, see `ipc.pack_tree`) and its tensors in the order of their numbers."""
    tensors: list[Tensor] = []

    def leaf(value: object) -> dict[str, Any]:
        match value:
            case Tensor():
                tensors.append(value)
                return {"tensor": len(tensors) - 1}
            case torch.dtype():
                return {"dtype": _name(value)}
            case torch.device():
                return {"device": str(value)}
        raise TransportError(
            f"a value of type {type(value).__name__} cannot be handed to a candidate; "
            "use tensors, numbers, strings, None, torch.dtype, and lists, tuples or dicts of these"
        )

    return ipc.pack_tree(tree, leaf), tensors


def unflatten(skeleton: Any, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `flatten`."""

    def leaf(tag: str, content: Any) -> object:
        match tag:
            case "tensor":
                return tensors[content]
            case "dtype":
                return getattr(torch, content)
            case "device":
                return torch.device(content)
        raise ipc.Malformed(f"unknown tag {tag!r} in a skeleton")

    return ipc.unpack_tree(skeleton, leaf)


class Region:
    """One tree's tensors in a sealed memfd, with the referee's own mapping of it."""

    def __init__(self, layout: list[Placed], skeleton: Any, *, writable: bool) -> None:
        """Map and seal memory for a layout; everything is canary at first. Callers use the three makers below."""
        self.layout, self.skeleton, self.writable = layout, skeleton, writable
        end = _end(layout)
        head = json.dumps({"skeleton": skeleton, "layout": layout}).encode()
        self.header = (end, len(head))
        """Offset and length of the JSON that tells the other side the skeleton and the layout."""
        self.size = _page_up(end + len(head))
        self.fd = os.memfd_create("tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | (0 if writable else _F_SEAL_FUTURE_WRITE)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)
        self._canary = _pattern()
        self._poison: Tensor | None = None
        _fill(self._bytes, self._canary)
        self._map[end : end + len(head)] = head

    @classmethod
    def inputs(cls, tree: object, *, writable: bool = False) -> Self:
        """What a candidate may read. Strides are kept exactly, gaps and overlaps included.

        `writable`: it may write, too, and `changed` tells whether it did.
        """
        skeleton, tensors = flatten(tree)
        region = cls(_layout([_plain(t) for t in tensors]), skeleton, writable=writable)
        region.write(tensors)
        return region

    @classmethod
    def outputs(cls, tree: object) -> Self:
        """Poisoned room for outputs like those in `tree` (eager's). Dense strides are kept, others made contiguous.

        Neither a tensor of `tree` nor its skeleton goes in: a number among the outputs is an answer, too.
        """
        tensors = [_compact(_plain(t)) for t in flatten(tree)[1]]
        region = cls(_layout(tensors), None, writable=True)
        region.poison()
        return region

    def twin(self) -> "Region":
        """The same inputs once more, writable."""
        region = Region(self.layout, self.skeleton, writable=True)
        for placed in self.layout:
            region.raw(placed).copy_(self.raw(placed))
        return region

    def write(self, tensors: Sequence[Tensor]) -> None:
        """Put other values in; dtypes, shapes and strides must be the ones the region was laid out for."""
        if len(tensors) != len(self.layout):
            raise TransportError(f"{len(tensors)} tensors for a region of {len(self.layout)}")
        for placed, tensor in zip(self.layout, tensors, strict=True):
            self._write(placed, _plain(tensor))

    def _write(self, placed: Placed, tensor: Tensor) -> None:
        got = (_name(tensor.dtype), list(tensor.shape))
        if got != (placed["dtype"], placed["shape"]):
            raise TransportError(
                f"a tensor {got[0]}{got[1]} where the region holds {placed['dtype']}{placed['shape']}; "
                "get_inputs() must give the same dtypes and shapes on every call"
            )
        if not tensor.numel():
            return
        if list(tensor.stride()) != placed["stride"]:
            raise TransportError(
                f"a tensor with strides {list(tensor.stride())} where the region holds {placed['stride']}; "
                "get_inputs() must give the same strides on every call"
            )
        self.raw(placed).copy_(_raw(tensor))

    def read_private(self, into: Sequence[Tensor] | None = None) -> list[Tensor]:
        """A copy of every tensor that no other process can change; `into` reuses an earlier copy's memory."""
        copies = [_empty(p) for p in self.layout] if into is None else list(into)
        for placed, copy in zip(self.layout, copies, strict=True):
            if copy.numel():
                _raw(copy).copy_(self.raw(placed))
        return copies

    def poison(self) -> None:
        """Make every output's bytes an answer that nobody gives."""
        self._poison = _pattern()
        for placed in self.layout:
            _fill(self.raw(placed), self._poison)

    def unwritten(self, copies: Sequence[Tensor]) -> list[int]:
        """Which of the private copies are still poison, whole or, for a bool, in part."""
        return [i for i, copy in enumerate(copies) if copy.numel() and self._is_poison(copy)]

    def _is_poison(self, copy: Tensor) -> bool:
        if self._poison is None:
            return False
        raw = _raw(copy)
        if copy.dtype is torch.bool and bool((raw > 1).any()):
            return True
        expected = torch.empty_like(raw)
        _fill(expected, self._poison)
        return bool(torch.equal(raw, expected))

    def changed(self, original: "Region") -> list[int]:
        """Numbers of the tensors whose bytes differ from those in a region of the same tree."""
        pairs = zip(self.layout, original.layout, strict=True)
        return [i for i, (a, b) in enumerate(pairs) if not torch.equal(self.raw(a), original.raw(b))]

    def canaries_ok(self) -> bool:
        """False when something wrote between the tensors."""
        longest = 2 * PAGE + _PATTERN
        tile = torch.empty(longest, dtype=torch.uint8)
        _fill(tile, self._canary)
        gaps = _gaps(self.layout)
        return all(torch.equal(self._bytes[a:b], tile[a % _PATTERN : a % _PATTERN + b - a]) for a, b in gaps)

    def close(self) -> None:
        """Unmap and close. Views taken from the region must be gone."""
        del self._bytes
        self._map.close()
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def raw(self, placed: Placed) -> Tensor:
        """The live bytes of a tensor's span."""
        return self._bytes[placed["offset"] : placed["offset"] + placed["nbytes"]]


def attach(fd: int, size: int, header: tuple[int, int], *, writable: bool) -> tuple[Any, list[Tensor]]:
    """The tree and the live tensors of a region made by another *trusted* process (the baseline's side).

    The mapping lives as long as one of the tensors does; `fd` may be closed afterwards.
    """
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapped = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, access)
    head = json.loads(mapped[header[0] : header[0] + header[1]])
    whole = _frombuffer(mapped)
    tensors = [_as_tensor(whole[p["offset"] : p["offset"] + p["nbytes"]], p) for p in head["layout"]]
    return unflatten(head["skeleton"], tensors), tensors


def _frombuffer(mapped: mmap.mmap) -> Tensor:
    import warnings

    with warnings.catch_warnings():
        # torch cannot mark a tensor read-only and says so; here the mapping itself refuses
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=torch.uint8)


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as bytes in memory: detached, conjugation and negation carried out; refuses what has no bytes here."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise TransportError(
            f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device} cannot be handed over; "
            "use dense tensors on the CPU"
        )
    return tensor.detach().resolve_conj().resolve_neg()


def _compact(tensor: Tensor) -> Tensor:
    """The tensor if its elements fill their span without gap or overlap (any permutation), else one that is."""
    expected = 1
    for stride, size in sorted((s, n) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n != 1):
        if stride != expected:
            return tensor.contiguous()
        expected *= size
    return tensor


def _span(tensor: Tensor) -> int:
    """Elements from the first to the last in memory; 0 for an empty tensor."""
    if not tensor.numel():
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))


def _raw(tensor: Tensor) -> Tensor:
    """The bytes of a tensor's span, gaps included, as a view. Needs at least one element."""
    return torch.as_strided(tensor, (_span(tensor),), (1,)).view(torch.uint8)


def _layout(tensors: Sequence[Tensor]) -> list[Placed]:
    """Places for the tensors: after a page of canaries, each on a page, a page of canaries behind each."""
    places: list[Placed] = []
    cursor = PAGE
    for tensor in tensors:
        nbytes = _span(tensor) * tensor.element_size()
        places.append(
            Placed(
                dtype=_name(tensor.dtype),
                shape=list(tensor.shape),
                stride=list(tensor.stride()),
                offset=cursor,
                nbytes=nbytes,
            )
        )
        cursor = _page_up(cursor + nbytes) + PAGE
    return places


def _end(layout: Sequence[Placed]) -> int:
    """Where the last tensor's canaries end."""
    return _gaps(layout)[-1][1]


def _gaps(layout: Sequence[Placed]) -> list[tuple[int, int]]:
    """The canaries' ranges: the first page, and from each tensor's end to the next one's start."""
    ends = [(p["offset"] + p["nbytes"], _page_up(p["offset"] + p["nbytes"]) + PAGE) for p in layout]
    return [(0, PAGE), *ends]


def _as_tensor(raw: Tensor, placed: Placed) -> Tensor:
    if not placed["nbytes"]:
        return _empty(placed)
    return raw.view(_dtype(placed)).as_strided(placed["shape"], placed["stride"])


def _empty(placed: Placed) -> Tensor:
    return torch.empty_strided(placed["shape"], placed["stride"], dtype=_dtype(placed))


def _dtype(placed: Placed) -> torch.dtype:
    dtype = getattr(torch, placed["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise TransportError(f"{placed['dtype']} is no dtype")
    return dtype


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _page_up(n: int) -> int:
    return -(-n // PAGE) * PAGE


def _pattern() -> Tensor:
    """16 random bytes, NaN as fp16, bf16, fp32, fp64 at every even offset, and invalid as bool."""
    pairs = [byte for random in secrets.token_bytes(_PATTERN // 2) for byte in (0xF0 | (random & 0x0F), 0xFF)]
    return torch.tensor(pairs, dtype=torch.uint8)


def _fill(target: Tensor, pattern: Tensor) -> None:
    """Repeat the pattern over a one-dimensional byte tensor."""
    whole = target.numel() // _PATTERN * _PATTERN
    target[:whole].view(-1, _PATTERN).copy_(pattern)
    target[whole:].copy_(pattern[: target.numel() - whole])
