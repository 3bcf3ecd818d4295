"""Loads a KernelBench-style problem module and finds what is wrong with it before anyone works on it.

The module is the user's, trusted like the verifier's own code; but it may be broken, and then the message names the
line, what stands there, and what to write instead.
"""

import ast
import hashlib
import linecache
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from kernelverify import resources
from kernelverify.resources import HostError
from kernelverify_api import request

EAGER = "eager"


class ProblemError(Exception):
    """The problem is unusable as written. The message is for its author; `line` is the module's, where known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message, self.line = message, line


@dataclass(frozen=True)
class LoadedProblem:
    """A problem whose module was imported. Every draw takes its seed, so that nothing is hidden in global state."""

    name: str
    sha256: str
    filename: str
    dtype: torch.dtype | None
    allow_tf32: bool
    model_class: type[nn.Module] = field(repr=False)
    make_inputs: Callable[[], Any] = field(repr=False)
    make_init_inputs: Callable[[], Any] = field(repr=False)
    make_baselines: Callable[[], Any] | None = field(repr=False, default=None)

    def init_args(self, seed: int) -> list[Any]:
        with self.blame("get_init_inputs()"):
            torch.manual_seed(seed)
            arguments = self.make_init_inputs()
        if not isinstance(arguments, list | tuple):
            raise ProblemError(
                f"get_init_inputs() returned {_show(arguments)}; return a list of the arguments of Model(...)",
                self._line_of("get_init_inputs"),
            )
        return list(arguments)

    def make_model(self, seed: int) -> nn.Module:
        """The reference, constructed under a seed as KernelBench does, in inference mode."""
        arguments = self.init_args(seed)
        with self.blame(f"Model(*get_init_inputs()) with {len(arguments)} argument(s)"):
            torch.manual_seed(seed)
            model = self.model_class(*arguments)
        return self._cast_model(model).eval()

    def get_inputs(self, seed: int) -> list[Any]:
        with self.blame("get_inputs()"):
            torch.manual_seed(seed)
            inputs = self.make_inputs()
        if not isinstance(inputs, list | tuple):
            raise ProblemError(
                f"get_inputs() returned {_show(inputs)}; return a list of the arguments of forward()",
                self._line_of("get_inputs"),
            )
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(inputs)):
            raise ProblemError(
                f"get_inputs() returned no tensor: {_show(inputs)}; return at least one tensor",
                self._line_of("get_inputs"),
            )
        return list(tree_map(self._cast, list(inputs)))

    def baselines(self) -> dict[str, Callable[..., Any]]:
        """What the module offers to time against, by name, each called like `forward`."""
        if self.make_baselines is None:
            return {}
        with self.blame("get_baselines()"):
            offered = self.make_baselines()
        if not isinstance(offered, dict) or not all(isinstance(k, str) and callable(v) for k, v in offered.items()):
            raise ProblemError(
                f"get_baselines() returned {_show(offered)}; return a dict of name -> callable like forward()",
                self._line_of("get_baselines"),
            )
        return dict(offered)

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        """Run the reference on copies of the inputs, without gradients."""
        copies = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, inputs)
        with self.blame("Model.forward(*get_inputs())"), torch.no_grad(), exact(allow_tf32=self.allow_tf32):
            return model(*copies)

    def _cast(self, value: Any) -> Any:
        if self.dtype is not None and isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self.dtype)
        return value

    def _cast_model(self, model: nn.Module) -> nn.Module:
        return model if self.dtype is None else model.to(self.dtype)

    def _line_of(self, function: str) -> int | None:
        code = getattr({"get_inputs": self.make_inputs, "get_init_inputs": self.make_init_inputs}.get(
            function, self.make_baselines), "__code__", None)  # fmt: skip
        return code.co_firstlineno if code else None

    @contextmanager
    def blame(self, what: str) -> Iterator[None]:
        """Whatever the module raises becomes a message that names its line; what the machine lacks, a HostError."""
        try:
            yield
        except (ProblemError, HostError):
            raise
        except (Exception, SystemExit) as error:
            raise _blamed(error, what, self.filename) from error


def load(problem: request.Problem) -> LoadedProblem:
    """Import the module. Raises `ProblemError`."""
    sha256 = hashlib.sha256(problem.source.encode("utf-8", "surrogatepass")).hexdigest()
    filename = f"<{problem.name} {sha256[:12]}>"
    namespace = _run_module(problem.source, problem.name, filename)
    return LoadedProblem(
        name=problem.name,
        sha256=sha256,
        filename=filename,
        dtype=getattr(torch, problem.dtype) if problem.dtype else None,
        allow_tf32=problem.allow_tf32,
        model_class=_model_class(namespace),
        make_inputs=_function(namespace, "get_inputs"),
        make_init_inputs=_function(namespace, "get_init_inputs") if "get_init_inputs" in namespace else list,
        make_baselines=_function(namespace, "get_baselines") if "get_baselines" in namespace else None,
    )


@contextmanager
def exact(*, allow_tf32: bool) -> Iterator[None]:
    """TF32 off for matrix products *and* cuDNN unless the problem allows it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _run_module(source: str, name: str, filename: str) -> dict[str, Any]:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deep
        line = getattr(error, "lineno", None)
        raise ProblemError(f"the problem does not parse: {error}", line) from error
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    module = types.ModuleType(f"problem_{hashlib.sha256(name.encode()).hexdigest()[:8]}")
    module.__file__ = filename
    try:
        exec(compile(source, filename, "exec"), module.__dict__)  # noqa: S102 - the reference is the user's own code
    except (Exception, SystemExit) as error:  # a module that leaves would take its judge along
        raise _blamed(error, "importing the problem", filename) from error
    return module.__dict__


def _model_class(namespace: dict[str, Any]) -> type[nn.Module]:
    found = namespace.get("Model")
    if found is None:
        raise ProblemError("the problem defines no Model; write `class Model(torch.nn.Module)` with a forward()")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ProblemError(f"Model is {_show(found)}; it must be a class derived from torch.nn.Module")
    return found


def _function(namespace: dict[str, Any], name: str) -> Callable[[], Any]:
    found = namespace.get(name)
    if found is None:
        raise ProblemError(f"the problem defines no {name}; write `def {name}(): return [...]`")
    if not callable(found):
        raise ProblemError(f"{name} is {_show(found)}; write `def {name}(): return [...]`")
    return found  # type: ignore[no-any-return]


def _blamed(error: BaseException, what: str, filename: str) -> ProblemError | HostError:
    if resources.shortage(error) and not resources.more_than_all(error):
        return HostError(f"{what} failed in the judge: {resources.told(error)}")
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == filename]
    line = lines[-1] if lines else None
    shown = linecache.getline(filename, line).strip() if line else ""
    place = f" at line {line}: `{shown[:120]}`" if line else ""
    return ProblemError(f"{what} raised {type(error).__name__}: {str(error)[:500]}{place}", line)


def _show(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:80]}"
