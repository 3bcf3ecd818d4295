"""Counts the torch operators that compute on large tensors: what a candidate left to torch.

Views, allocations, fills, copies, casts and `contiguous` are always allowed and not counted. Calls from C++ into
ATen are seen as well, so are those inside an operator of the candidate's own, and those on Python threads started
meanwhile. Informative: a candidate could forge it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import (  # dispatch keys have no public name
    DispatchKey,
    DispatchKeySet,
    _dispatch_get_all_op_names,
    _dispatch_has_computed_kernel_for_dispatch_key,
    _dispatch_keys,
    _dispatch_keyset_full_after,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from kernelverify.guest import threads

ALLOWED = frozenset({
    # places to put something
    "empty", "empty_strided", "empty_like", "empty_permuted", "new_empty", "new_empty_strided", "zeros", "zeros_like",
    "new_zeros", "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "fill", "fill_", "zero", "zero_",
    "resize_", "set_", "scalar_tensor",
    # copies and casts
    "clone", "copy", "copy_", "_to_copy", "to", "contiguous", "_copy_from", "_copy_from_and_resize", "lift",
    "lift_fresh", "lift_fresh_copy", "detach", "detach_", "alias", "_unsafe_view", "_reshape_copy", "_reshape_alias",
    "view_copy", "squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "as_strided_",
    # questions about a tensor, not computation on it
    "is_same_size", "is_pinned", "is_set_to", "sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "size",
    "stride", "storage_offset", "numel", "dim", "_local_scalar_dense", "item", "_has_compatible_shallow_copy_type",
    "set_data", "_version", "record_stream", "_pin_memory",
})  # fmt: skip
"""Names of the ATen operators that move or place data but compute nothing. Views are recognised by their schema."""


TORCHS = frozenset(name.partition("::")[0] for name in _dispatch_get_all_op_names())
"""Namespaces of torch's own operators, `mkldnn` and its like included: those there are before any candidate."""


def allowed(operator: Any) -> bool:
    """Whether an operator (an `OpOverload`) computes nothing. Only torch's are counted: others are the candidate's."""
    if operator.namespace not in TORCHS:
        return True
    return bool(operator.is_view) or _base_name(operator) in ALLOWED


def _base_name(operator: Any) -> str:
    return str(operator.name()).partition("::")[2].split(".")[0]


class Tally:
    """What was counted so far: calls by operator name (`aten.mm`), on tensors of more than `threshold` elements."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.counts: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget what was counted, for example during the candidate's import and construction."""
        self.counts.clear()

    def note(self, operator: Any, values: Any) -> None:
        if not allowed(operator) and any(self._is_large(leaf) for leaf in tree_iter(values)):
            self.counts[f"{operator.namespace}.{_base_name(operator)}"] += 1

    def _is_large(self, leaf: Any) -> bool:
        return isinstance(leaf, torch.Tensor) and leaf.numel() > self.threshold


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operator and tells the tally."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tally = tally

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = self._run(func, args, kwargs or {})
        self._tally.note(func, (args, kwargs, result))
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator of another namespace with this mode still on, or it would hide all that it asks of ATen."""
        keys = None if func.namespace == "aten" else _backend(func, (args, kwargs))
        if keys is None:
            return func(*args, **kwargs)
        with self:
            return func.redispatch(keys, *args, **kwargs)


def _backend(operator: Any, values: Any) -> Any:
    """The keys of an operator's kernel, which lies below every mode; None where it cannot be called straight away."""
    keys = DispatchKeySet(DispatchKey.Undefined)
    for leaf in tree_iter(values):
        if isinstance(leaf, torch.Tensor):
            keys = keys | _dispatch_keys(leaf)
    if keys.has(DispatchKey.Python):  # a subclass that takes part in dispatch
        return None
    keys = keys & _dispatch_keyset_full_after(DispatchKey.Python)
    if keys.highestPriorityTypeId() == DispatchKey.Undefined:  # no tensors: what it makes, it makes here
        keys = DispatchKeySet(DispatchKey.CPU)
    key = keys.highestPriorityTypeId().name
    return keys if _dispatch_has_computed_kernel_for_dispatch_key(operator.name(), key) else None


@contextmanager
def counter(threshold_elements: int) -> Iterator[Tally]:
    """Count on this thread, and on Python threads that start inside the block (and until they end)."""
    tally = Tally(threshold_elements)

    def on_thread() -> Counting:
        return Counting(tally)

    threads.add(on_thread)
    try:
        with on_thread():
            yield tally
    finally:
        threads.remove(on_thread)
