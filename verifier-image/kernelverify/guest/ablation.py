"""The causal test for custom kernels: the candidate's answer when none of its kernels does anything.

`install` goes before the candidate's import. It makes every custom launch (a Triton launch, a function or operator of
a built library) observable and, in an ablation mode, ineffective:

- `zeros`, `ones`: launches do nothing, and fresh allocations (`torch.empty`, `zeros` and kin) hold zeros or ones. A
  built function runs on copies of its tensors, so its mutations are lost, and its results are filled likewise.
- `raise`: launches raise, which shows who falls back to torch silently.
- `part`: launches do their work, but a secret 64th of what they changed is spoilt. Who only looks here and there
  whether its decoy still works is not warned.

An honest candidate is wrong or fails under each mode. `idle` does the same as `zeros`, allocations apart, for a single
call in the midst of timed ones: a kernel that was checked must also be the one that is timed. What this module reports
may be forged by the candidate; the referee believes only the outputs.
"""

import functools
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from kernelverify.guest import threads

Mode = Literal["zeros", "ones", "raise", "part"]
Function = Callable[..., Any]
FILL: Mapping[str, int] = {"zeros": 0, "ones": 1}
PARTS, LEAST_PARTS = 64, 256
DISABLED = "custom kernel disabled"
LEAST_ADDRESS = 1 << 32
"""An int from here on is an address: no size is so large, and no mapping lies below."""

_aten = torch.ops.aten
ALLOCATIONS = frozenset({
    _aten.empty.memory_format, _aten.empty_strided.default, _aten.empty_like.default, _aten.empty_permuted.default,
    _aten.new_empty.default, _aten.new_empty_strided.default,
    _aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default,
})  # fmt: skip
"""Operators whose result is a place to put an answer. `full` isn't one: its value is part of an algorithm."""


class KernelDisabledError(RuntimeError):
    """Raised by every launch in mode `raise`."""


class Recorder:
    """Which custom kernels were launched, and what a launch does under the mode."""

    def __init__(self, mode: Mode | None = None) -> None:
        self.mode: Mode | None = mode
        self.counts: Counter[str] = Counter()
        self.noting = False
        """Whether sizes are looked at: it takes microseconds that no timed call should pay for."""
        self.largest = 0
        """Elements of the largest tensor that any launch was given or gave back."""

    @contextmanager
    def idle(self, *, wanted: bool) -> Iterator[None]:
        """Launches do nothing inside the block, if that is wanted."""
        before = self.mode
        self.mode = "zeros" if wanted else before
        try:
            yield
        finally:
            self.mode = before

    @property
    def launched(self) -> tuple[str, ...]:
        """Names of the launched kernels, each once, in order of their first launch."""
        return tuple(self.counts)

    def wrap(self, name: str, function: Function) -> Function:
        """A built function as the candidate may see it: counted, and ineffective under an ablation mode."""

        @functools.wraps(function, updated=())
        def launch(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] += 1
            result = self._act(function, args, kwargs)
            self._note((args, kwargs, result))
            return result

        return launch

    def _act(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.mode is None:
            return function(*args, **kwargs)
        if self.mode == "raise":
            raise KernelDisabledError(DISABLED)
        if self.mode == "part":
            return _spoiling(function, args, kwargs)
        return _filling(FILL[self.mode], function, args, kwargs)

    def _note(self, tree: Any) -> None:
        if not self.noting:
            return
        sizes = (leaf.numel() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
        self.largest = max(self.largest, *sizes, 0)

    def wrap_launcher(self, run: Function) -> Function:
        """A Triton launcher's `run` method. Warm-up compiles and launches nothing, so it stays as it is."""

        @functools.wraps(run)
        def launch(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("warmup"):
                return run(kernel, *args, **kwargs)
            self.counts[kernel.fn.__name__] += 1
            self._note((args, kwargs))
            if self.mode == "part":
                return _spoiling(functools.partial(run, kernel), args, kwargs)
            if self.mode == "raise":
                raise KernelDisabledError(DISABLED)
            return run(kernel, *args, **kwargs) if self.mode is None else None

        return launch


_recorder = Recorder()


def recorder() -> Recorder:
    """The process's recorder: the one that the last `install` made."""
    return _recorder


def install(mode: Mode | None) -> Recorder:
    """Take hold of every custom launch of this process, for good."""
    global _recorder  # noqa: PLW0603 - one candidate per process, one recorder per candidate
    _recorder = Recorder(mode)
    _install_triton(_recorder)
    if mode is not None and mode in FILL:
        threads.enter_everywhere(functools.partial(FilledAllocations, FILL[mode]))
    return _recorder


def _install_triton(recorder: Recorder) -> None:
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for kind in (InterpretedFunction, JITFunction):
        kind.run = recorder.wrap_launcher(kind.run)


class FilledAllocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fresh tensors hold one value instead of whatever the memory held.

    A dispatch mode sees `torch.empty`, `x.new_empty`, `torch.ops.aten.empty` and allocations from C++ alike.
    """

    def __init__(self, value: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._value = value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.fill_(self._value) if func in ALLOCATIONS else result


def _filling(value: int, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not _copyable((args, kwargs)):
        return None
    copies = tree_map(_copy, (args, kwargs))
    return tree_map(functools.partial(_fill, value), function(*copies[0], **copies[1]))


def _spoiling(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The real work, of which a part is spoilt."""
    if not _copyable((args, kwargs)):
        return None
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    before = [leaf.detach().clone() for leaf in given]
    result = function(*args, **kwargs)
    with torch.no_grad():
        for leaf, old in zip(given, before, strict=True):
            _spoil(leaf.detach(), old)
    return tree_map(_spoilt, result)


def _spoilt(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        with torch.no_grad():
            _spoil(leaf.detach(), torch.zeros_like(leaf))
        return leaf
    return _fill(0, leaf)


def _spoil(tensor: torch.Tensor, old: torch.Tensor) -> None:
    """Overwrite a secret part of what was changed; all of it where that is little."""
    changed = ((tensor != old) & ~((tensor != tensor) & (old != old))).nonzero(as_tuple=True)  # noqa: PLR0124 - NaN
    count = changed[0].numel() if changed else 0
    if not count:
        return
    # from the system's randomness: a candidate may have seeded torch's
    generator = torch.Generator().manual_seed(secrets.randbits(48))
    chosen = torch.randperm(count, generator=generator)[: count if count < LEAST_PARTS else count // PARTS + 1]
    places = tuple(axis[chosen] for axis in changed)
    tensor[places] = _outliers(tensor[places], _largest(tensor), generator)


def _outliers(values: torch.Tensor, largest: float, generator: torch.Generator) -> torch.Tensor:
    """Random values beyond all others, every second one below: even a maximum or a minimum over them is wrong.

    Finite, and not beyond measure: who adds a decoy's result times nothing, or next to nothing, must stay right.
    """
    if values.dtype is torch.bool:
        return ~values
    signs = 1 - 2 * (torch.arange(values.numel()) % 2)
    beyond = signs * largest * (4 + 4 * torch.rand(values.numel(), generator=generator, dtype=torch.float64))
    return beyond.clamp(*_range(values.dtype)).to(values.dtype)


def _largest(tensor: torch.Tensor) -> float:
    """The largest finite absolute value (of a complex number's parts), or 1.

    No copy of the answer is left in freed memory: what the candidate allocates next would hold it, and of a launch that
    then writes it anew nothing would be seen to change, nor be spoilt.
    """
    if tensor.dtype is torch.bool:
        return 1.0
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    sizes = real.to(torch.float64, copy=True).abs_().nan_to_num_(0, 0, 0)
    largest = float(sizes.max())
    sizes.zero_()
    return largest or 1.0


def _range(dtype: torch.dtype) -> tuple[float, float]:
    """What a dtype holds, in numbers that a double can hold, too."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.finfo(dtype).min, torch.finfo(dtype).max
    limits = torch.iinfo(dtype)
    return float(limits.min), float(min(limits.max, 1 << 62))


def _copyable(tree: Any) -> bool:
    """Whether copies keep a function from its real work: not where it takes addresses (`x.data_ptr()`) for tensors."""
    leaves = tree_leaves(tree)
    tensors = any(isinstance(leaf, torch.Tensor) for leaf in leaves)
    return tensors and not any(isinstance(leaf, int) and leaf >= LEAST_ADDRESS for leaf in leaves)


def _copy(leaf: Any) -> Any:
    """The same view of a copied storage: kernels may insist on strides, and views may overlap themselves."""
    if not isinstance(leaf, torch.Tensor):
        return leaf
    copy = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
    with torch.no_grad():
        copy.set_(_cloned(leaf.untyped_storage()), leaf.storage_offset(), leaf.shape, leaf.stride())
    return copy.requires_grad_(leaf.requires_grad)


def _cloned(storage: Any) -> Any:
    return storage.clone()


def _fill(value: int, leaf: Any) -> Any:
    """Numbers are results too: a kernel may return a sum as a float."""
    if isinstance(leaf, torch.Tensor):
        return torch.full_like(leaf, value)
    if type(leaf) in {bool, int, float, complex}:
        return type(leaf)(value)
    return leaf


class BuiltOperator:
    """An operator that a built library registered with torch, wrapped as a built function is."""

    def __init__(self, recorder: Recorder, name: str, operator: Any) -> None:
        self._recorder = recorder
        self._name = name
        self._operator = operator
        self._call = recorder.wrap(name, operator)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._operator, attribute)
        is_overload = isinstance(found, torch._ops.OpOverload)  # noqa: SLF001 - torch gives it no public name
        return BuiltOperator(self._recorder, self._name, found) if is_overload else found


def wrap_operators(recorder: Recorder, qualified: Iterable[str]) -> None:
    """Wrap operators by name (`space::name`), where `torch.ops.space.name` finds them."""
    for full in {name.split(".")[0] for name in qualified}:
        space_name, _, name = full.partition("::")
        space = getattr(torch.ops, space_name)
        setattr(space, name, BuiltOperator(recorder, full, getattr(space, name)))


def wrap_class(recorder: Recorder, kind: type) -> None:
    """Wrap the methods of a class that a built library defines, in place: its objects come from anywhere."""
    for name, member in list(vars(kind).items()):
        if callable(member) and (not name.startswith("__") or name == "__call__"):
            setattr(kind, name, _method(recorder.wrap(f"{kind.__name__}.{name}", member)))


def _method(function: Function) -> Function:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return call
