"""Which bindings an object asks for, and the source that makes them.

The lean `torch/extension.h` leaves `kernelverify::bind<F>` undefined, with `F` the type of a candidate's function. The
linker's own name for it, made readable by nm, is already an explicit instantiation; so nothing here parses C++.
"""

import re
from collections.abc import Iterable

MOST_USUAL = 6
"""Tensors in, one tensor out: what nearly all kernels are. These bindings are made before anybody asks."""
_WANTED = re.compile(r"^\s+U (void kernelverify::bind(?:_guarded)?<[\w:<>(),&* ]+>\([\w,* ]+\))$", re.MULTILINE)
_ANY = re.compile(r"^\s+U kernelverify::initialise\(\)$", re.MULTILINE)

_EVERYTHING = re.compile(
    r"\bpy::|\bpybind11\b|\btorch::(nn|jit|optim|data|serialize|autograd)\b|\bPyObject\b|\bPython\.h\b|<torch/(all|torch|python)\.h>"
)


def needs_everything(sources: Iterable[str]) -> bool:
    """Whether the lean header is known not to do. Only a hint that saves time: a miss costs a try, no more."""
    return any(_EVERYTHING.search(text) for text in sources)


def has_module(symbols: str) -> bool:
    """Whether the objects define a Python module the lean way. `symbols`: `nm -C --undefined-only`."""
    return _ANY.search(symbols) is not None


def unusual(symbols: str) -> tuple[str, ...]:
    """The instantiations that these objects lack beside the usual ones, sorted."""
    return tuple(sorted(set(_WANTED.findall(symbols)) - set(usual())))


def usual() -> tuple[str, ...]:
    """As nm writes them."""
    signatures = [f"at::Tensor ({', '.join(['at::Tensor'] * n)})" for n in range(1, MOST_USUAL + 1)]
    return tuple(
        f"void kernelverify::{bind}<{signature}>(void*, char const*, void*, char const*)"
        for bind in ("bind", "bind_guarded")
        for signature in signatures
    )


def source(instantiations: Iterable[str], *, module: bool = False) -> str:
    """A file that defines them and, where asked, the module that they are put into."""
    header = "module" if module else "bindings"
    return "\n".join([f"#include <kernelverify/{header}.h>", *(f"template {text};" for text in instantiations), ""])
