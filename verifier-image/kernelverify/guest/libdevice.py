"""`triton.language.extra.libdevice` for the interpreter, which raises on every external function.

A symbol such as `__nv_tanhf` is looked up by its name without prefix and precision suffix. What is missing raises
`NotImplementedError` with the function's name, as before.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch.utils._python_dispatch import _disable_current_modes
from triton.language.extra import libdevice as facade
from triton.language.extra.cuda import libdevice as nvidia
from triton.runtime import interpreter

Function = Callable[..., Any]


def _by_torch(name: str) -> Function:
    """A function that numpy lacks, by torch; outside any dispatch mode, so that it's nobody's torch operator."""
    function = getattr(torch.special, name)

    def evaluate(*arrays: Any) -> Any:
        with _disable_current_modes():
            return function(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)).numpy()

    return evaluate


_NUMPY: dict[str, Function] = {
    "abs": np.abs, "fabs": np.fabs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
    "atan": np.arctan, "atan2": np.arctan2, "atanh": np.arctanh, "cbrt": np.cbrt, "ceil": np.ceil,
    "copysign": np.copysign, "cos": np.cos, "cosh": np.cosh, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "fdivide": np.divide, "ldexp": np.ldexp, "llabs": np.abs, "nextafter": np.nextafter,
    "floor": np.floor, "fma": lambda x, y, z: x * y + z, "fmax": np.fmax, "fmin": np.fmin, "fmod": np.fmod,
    "hypot": np.hypot, "log": np.log, "log10": np.log10, "log1p": np.log1p, "log2": np.log2, "max": np.maximum,
    "min": np.minimum, "nearbyint": np.rint, "pow": np.power, "powi": np.power, "rint": np.rint, "sin": np.sin,
    "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh, "trunc": np.trunc,
    "exp10": lambda x: np.power(x.dtype.type(10), x), "rsqrt": lambda x: 1 / np.sqrt(x),
    "rcbrt": lambda x: 1 / np.cbrt(x), "fdim": lambda x, y: np.maximum(x - y, 0),
    "round": lambda x: np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x),
    "saturate": lambda x: np.clip(np.nan_to_num(x, nan=0.0), 0, 1),
    "sinpi": lambda x: np.sin(x * x.dtype.type(math.pi)), "cospi": lambda x: np.cos(x * x.dtype.type(math.pi)),
    "normcdf": lambda x: np.float32(0.5) * _by_torch("erfc")(-x / x.dtype.type(math.sqrt(2))),
    "isnan": np.isnan, "isnand": np.isnan, "isinf": np.isinf, "isinfd": np.isinf, "finite": np.isfinite,
    "isfinited": np.isfinite, "signbit": np.signbit, "signbitd": np.signbit,
}  # fmt: skip
_TORCH = {
    "erf": "erf", "erfc": "erfc", "erfcx": "erfcx", "erfinv": "erfinv", "lgamma": "gammaln", "j0": "bessel_j0",
    "j1": "bessel_j1", "cyl_bessel_i0": "i0", "cyl_bessel_i1": "i1", "normcdfinv": "ndtri",
}  # fmt: skip
_ROUNDED: dict[str, Function] = {
    "fadd": np.add, "fsub": np.subtract, "fmul": np.multiply, "fdiv": np.divide, "fsqrt": np.sqrt,
    "dadd": np.add, "dsub": np.subtract, "dmul": np.multiply, "ddiv": np.divide, "dsqrt": np.sqrt,
    "frcp": np.reciprocal, "drcp": np.reciprocal, "frsqrt": lambda x: 1 / np.sqrt(x),
    "fma": lambda x, y, z: x * y + z, "fmaf": lambda x, y, z: x * y + z,
}  # fmt: skip
"""Those with a rounding mode in the name (`__nv_fadd_rn`): all round to nearest here."""


def find(symbol: str) -> Function:
    """The host's version of a libdevice symbol, such as `__nv_fast_expf`."""
    name = symbol.removeprefix("__nv_").removeprefix("fast_")
    rounded, _, mode = name.rpartition("_")
    if mode in {"rn", "rz", "rd", "ru"} and rounded in _ROUNDED:
        return _ROUNDED[rounded]
    for candidate in (name, name.removesuffix("f")):
        if candidate in _NUMPY:
            return _NUMPY[candidate]
        if candidate in _TORCH:
            return _by_torch(_TORCH[candidate])
    raise NotImplementedError(f"libdevice function {symbol} is not available in Triton's interpreter on this verifier")


def create_extern_elementwise(
    _builder: Any, _name: str, _path: str, symbol: str, handles: list[Any], result_type: Any, _is_pure: bool
) -> Any:
    """Replaces the interpreter's method of this name; every handle is already of one shape."""
    scalar = getattr(result_type, "scalar", result_type)
    dtype = interpreter._get_np_dtype(scalar)  # noqa: SLF001 - the mapping has no public name
    result = np.asarray(find(symbol)(*(handle.data for handle in handles)))
    return interpreter.TensorHandle(result.astype(dtype), scalar)


def install() -> None:
    """Bind every libdevice function to the interpreter, under both of its names."""
    interpreter.InterpreterBuilder.create_extern_elementwise = create_extern_elementwise
    for name, function in list(vars(nvidia).items()):
        if tl.core.is_builtin(function):
            bound = _bind(function)
            setattr(nvidia, name, bound)
            if hasattr(facade, name):
                setattr(facade, name, bound)


def _bind(function: Function) -> Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("_semantic", None)
        return function(*args, **kwargs, _semantic=interpreter.interpreter_semantic)

    return call
