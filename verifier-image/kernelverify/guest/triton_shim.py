"""Makes `TRITON_INTERPRET=1` a faithful stand-in for a GPU on a machine without one (checked with triton 3.9.0).

What the interpreter lacks, and what happens here:

1. `triton.autotune` and `triton.testing` ask the active driver for a benchmarker: a host driver answers.
2. bfloat16 lives in numpy as `uint16`; arithmetic, casts and `tl.dot` on it would work on raw bit patterns
   (triton#11584). They compute in float32 and round to nearest even, as the hardware does.
3. `libdevice` functions raise: `guest.libdevice` provides them.
4. numpy warns where a GPU is silent (overflow, NaN): silenced, for the log belongs to the candidate.

An honest kernel that fails here although a GPU runs it is a bug of this module.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
import triton.testing
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, interpreter
from triton.runtime.jit import JITFunction

from kernelverify.guest import libdevice

TUNING_SECONDS = 5.0
"""How long a process may spend on running autotune's configurations, in seconds. Interpreted times mean nothing, so
the runs only show that a configuration works; a long list must not eat the time limit of an honest kernel."""


class NotInterpretingError(RuntimeError):
    """Triton was imported before TRITON_INTERPRET=1 was set, so its own library is compiled, not interpreted."""


def install() -> None:
    """Patch the interpreter. Call once, after importing triton and before any candidate."""
    if isinstance(tl.standard.sum, JITFunction):
        raise NotInterpretingError(
            f"triton was imported with TRITON_INTERPRET={os.environ.get('TRITON_INTERPRET')!r}; "
            "set TRITON_INTERPRET=1 in the environment before the first import of triton"
        )
    driver.set_active(HostDriver())
    _install_bfloat16()
    _install_quiet_launch()
    libdevice.install()
    triton.testing.do_bench = do_bench
    triton.testing.do_bench_cudagraph = do_bench


class Benchmarker:
    """Runs each configuration once while the time allowance lasts, then calls the rest infinitely slow.

    So a configuration that crashes still crashes, and the first one wins when nothing was measured.
    """

    def __init__(self, allowance_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._left = allowance_s
        self._clock = clock

    def __call__(self, fn: Callable[[], Any], quantiles: Sequence[float] | None = None, **_: Any) -> Any:
        elapsed_ms = self._measure(fn) if self._left > 0 else float("inf")
        return [elapsed_ms] * len(quantiles) if quantiles else elapsed_ms

    def _measure(self, fn: Callable[[], Any]) -> float:
        start = self._clock()
        fn()
        elapsed = self._clock() - start
        self._left -= elapsed
        return elapsed * 1e3


def do_bench(fn: Callable[[], Any], *_: Any, quantiles: Sequence[float] | None = None, **__: Any) -> Any:
    """Stand-in for `triton.testing.do_bench`: one run, in milliseconds."""
    return Benchmarker(TUNING_SECONDS)(fn, quantiles)


class HostUtils:
    """Plausible device properties (those of an H100), for kernels that size their grid by them."""

    def get_device_properties(self, _device: int = 0) -> dict[str, int]:
        return {
            "max_shared_mem": 232448,
            "max_num_regs": 65536,
            "multiprocessor_count": os.cpu_count() or 1,
            "warpSize": 32,
            "sm_clock_rate": 1_980_000,
            "mem_clock_rate": 2_619_000,
            "mem_bus_width": 5120,
        }


class HostDriver:
    """What triton asks of a driver, answered by the host. The target only steers library choices in the kernel."""

    def __init__(self) -> None:
        self.utils = HostUtils()
        self._benchmarker = Benchmarker(TUNING_SECONDS)

    def is_active(self) -> bool:
        return True

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, _device: int) -> None:
        """There is one device only."""

    def get_current_stream(self, _device: int | None = None) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_benchmarker(self) -> Benchmarker:
        return self._benchmarker

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        return torch.empty(1)

    def clear_cache(self, _cache: torch.Tensor) -> None:
        """Nothing is cached by the interpreter."""


# ---- bfloat16: numpy has none, so the interpreter keeps the 16 bits in uint16 ----


def widen(bits: Any) -> Any:
    """bfloat16 bit patterns (uint16) to float32: exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: Any, *, toward_zero: bool = False) -> Any:
    """Round values to bfloat16 bit patterns (uint16), to nearest even unless told otherwise; NaN stays NaN."""
    single = np.asarray(values).astype(np.float32)
    bits = single.view(np.uint32)
    up = np.uint32(0) if toward_zero else np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = (bits + up) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(np.isnan(single), quiet, rounded).astype(np.uint16)


def _is_bf16(dtype: Any) -> bool:
    return bool(dtype.scalar == tl.bfloat16)


def _wide_handle(handle: Any) -> Any:
    if isinstance(handle, interpreter.TensorHandle) and _is_bf16(handle.dtype):
        return interpreter.TensorHandle(widen(handle.data), tl.float32)
    return handle


def _narrow_handle(handle: Any) -> Any:
    if handle.data.dtype == np.bool_:  # a comparison; the caller gives it its type
        return handle
    return interpreter.TensorHandle(narrow(handle.data), tl.bfloat16)


def _in_float32(method: Callable[..., Any]) -> Callable[..., Any]:
    """A builder method that computes on values: operands that are bfloat16 go through float32 and back."""

    def compute(self: Any, first: Any, *rest: Any, **kwargs: Any) -> Any:
        if not _is_bf16(first.dtype):
            return method(self, first, *rest, **kwargs)
        return _narrow_handle(method(self, _wide_handle(first), *map(_wide_handle, rest), **kwargs))

    return compute


def _install_bfloat16() -> None:
    builder = interpreter.InterpreterBuilder
    for name in ("binary_op", "unary_op", "create_fma", "create_clampf"):
        setattr(builder, name, _in_float32(getattr(builder, name)))
    builder.cast_impl = _cast(builder.cast_impl)
    builder.create_fp_to_fp = _float_to_float(builder.create_fp_to_fp)
    builder.create_dot = _dot(builder.create_dot)
    builder.create_atomic_rmw = _atomic(builder.create_atomic_rmw)
    for operation in (interpreter.ReduceOps, interpreter.ScanOps):
        operation.apply_impl = _reduction(operation.apply_impl)


def _cast(plain: Callable[..., Any]) -> Callable[..., Any]:
    def cast_impl(self: Any, src: Any, dst_type: Any) -> Any:
        wide = _wide_handle(src)
        if not _is_bf16(dst_type):
            return plain(self, wide, dst_type) if wide is not src else plain(self, src, dst_type)
        return interpreter.TensorHandle(narrow(wide.data), tl.bfloat16)

    return cast_impl


def _float_to_float(plain: Callable[..., Any]) -> Callable[..., Any]:
    def create_fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if rounding_mode == interpreter._ir.ROUNDING_MODE.RTZ and _is_bf16(dst_type):  # noqa: SLF001 - see below
            return interpreter.TensorHandle(narrow(src.data, toward_zero=True), tl.bfloat16)
        if _is_bf16(src.dtype) or _is_bf16(dst_type):
            return self.cast_impl(src, dst_type)
        return plain(self, src, dst_type, rounding_mode)

    return create_fp_to_fp


def _dot(plain: Callable[..., Any]) -> Callable[..., Any]:
    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        product = plain(self, _wide_handle(a), _wide_handle(b), _wide_handle(d), *rest)
        return _narrow_handle(product) if _is_bf16(d.dtype) else product

    return create_dot


def _atomic(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`tl.atomic_*` on bfloat16, element after element: the interpreter runs one program at a time."""

    def create_atomic_rmw(self: Any, operation: Any, ptr: Any, val: Any, mask: Any, *rest: Any) -> Any:
        if not _is_bf16(val.dtype) or operation not in _FLOAT_ATOMICS:
            return plain(self, operation, ptr, val, mask, *rest)
        before = np.zeros(ptr.data.shape, dtype=np.uint16)
        for index in np.ndindex(ptr.data.shape):
            if mask.data[index]:
                before[index] = _update(self, _FLOAT_ATOMICS[operation], ptr, val, index)
        return interpreter.TensorHandle(before, tl.bfloat16)

    return create_atomic_rmw


_FLOAT_ATOMICS = {interpreter._ir.ATOMIC_OP.FADD: np.add}  # noqa: SLF001 - the enum has no public name


def _update(builder: Any, combine: Callable[..., Any], ptr: Any, val: Any, index: tuple[int, ...]) -> Any:
    cell = interpreter.TensorHandle(np.asarray([ptr.data[index]]), ptr.dtype)
    old = builder.create_load(cell, cache_policy=None, is_volatile=False).data
    new = narrow(combine(widen(old), widen(np.asarray([val.data[index]]))))
    builder.create_store(cell, interpreter.TensorHandle(new, tl.bfloat16), None)
    return old[0]


def _reduction(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Reductions and scans; their results stand in the order of their operands."""

    def apply_impl(self: Any, operands: tuple[Any, ...]) -> Any:
        if not any(_is_bf16(operand.dtype) for operand in operands):
            return plain(self, operands)
        wide = tuple(
            self.to_tensor(widen(operand.handle.data), tl.float32) if _is_bf16(operand.dtype) else operand
            for operand in operands
        )
        results = plain(self, wide)
        results = results if isinstance(results, list | tuple) else (results,)
        return tuple(
            _narrow_tensor(result) if _is_bf16(operand.dtype) else result
            for operand, result in zip(operands, results, strict=False)
        )

    return apply_impl


def _narrow_tensor(tensor: Any) -> Any:
    kind = tl.block_type(tl.bfloat16, list(tensor.type.shape)) if tensor.type.is_block() else tl.bfloat16
    return tl.tensor(_narrow_handle(tensor.handle), kind)


def _install_quiet_launch() -> None:
    plain = interpreter.InterpretedFunction.run
    warnings.filterwarnings("ignore", message="All-NaN", category=RuntimeWarning)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with np.errstate(all="ignore"):
            return plain(self, *args, **kwargs)

    interpreter.InterpretedFunction.run = run
