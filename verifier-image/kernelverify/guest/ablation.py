"""The causal test for custom kernels: the candidate's answer when none of its kernels does anything.

`install` goes before the candidate's import. It makes every custom launch (a Triton launch, a function or operator of
a built library) observable and, in an ablation mode, ineffective:

- `zeros`, `ones`: launches do nothing, and fresh allocations (`torch.empty`, `zeros` and kin) hold zeros or ones. A
  built function runs on copies of its tensors, so its mutations are lost, and its results are filled likewise.
- `raise`: launches raise, which shows who falls back to torch silently.

An honest candidate is wrong or fails under each mode. What this module reports may be forged by the candidate; the
referee believes only the outputs.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NoReturn

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from kernelverify.guest import threads

Mode = Literal["zeros", "ones", "raise"]
Function = Callable[..., Any]
FILL: Mapping[str, int] = {"zeros": 0, "ones": 1}

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
        self.mode = mode
        self.counts: Counter[str] = Counter()

    @property
    def launched(self) -> tuple[str, ...]:
        """Names of the launched kernels, each once, in order of their first launch."""
        return tuple(self.counts)

    def wrap(self, name: str, function: Function) -> Function:
        """A built function as the candidate may see it: counted, and ineffective under an ablation mode."""
        act = {None: _plainly, "raise": _raising}.get(self.mode) or functools.partial(_filling, FILL[str(self.mode)])

        @functools.wraps(function, updated=())
        def launch(*args: Any, **kwargs: Any) -> Any:
            self.counts[name] += 1
            return act(function, args, kwargs)

        return launch

    def wrap_launcher(self, run: Function) -> Function:
        """A Triton launcher's `run` method. Warm-up compiles and launches nothing, so it stays as it is."""

        @functools.wraps(run)
        def launch(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("warmup"):
                return run(kernel, *args, **kwargs)
            self.counts[kernel.fn.__name__] += 1
            if self.mode == "raise":
                _raising(run, args, kwargs)
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


def _plainly(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _raising(_function: Function, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> NoReturn:
    raise KernelDisabledError("custom kernel disabled")


def _filling(value: int, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    copies = tree_map(_copy, (args, kwargs))
    return tree_map(functools.partial(_fill, value), function(*copies[0], **copies[1]))


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
