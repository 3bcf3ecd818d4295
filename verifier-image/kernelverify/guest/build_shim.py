"""Stands in for `torch.utils.cpp_extension.load_inline` and `load` inside the candidate's process.

Compilers do not run here. A build that the referee already has is imported by its path; for any other, `want` is
called with what to build, and ends the process: the build pool compiles it, and a new candidate process starts.
"""

import hashlib
import importlib.machinery
import importlib.util
import inspect
import json
import tempfile
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils import cpp_extension

from kernelverify.guest import ablation

SHIM_VERSION = "1"
"""Part of every key: raise it when the composition of a source changes."""
MAX_FILE_BYTES = 256 * 1024
HEADERS = frozenset({".h", ".hpp", ".hh", ".hxx", ".cuh", ".inl", ".inc", ".ipp"})

COMMON_OPTIONS: Mapping[str, Any] = {
    "extra_cuda_cflags": None,
    "extra_sycl_cflags": None,
    "extra_ldflags": None,
    "extra_include_paths": None,
    "build_directory": None,
    "verbose": False,
    "with_cuda": None,
    "with_sycl": None,
    "is_python_module": True,
    "is_standalone": False,
    "keep_intermediates": True,
}
INLINE_OPTIONS: Mapping[str, Any] = {
    **{name: default for name, default in COMMON_OPTIONS.items() if name != "is_standalone"},
    "with_pytorch_error_handling": True,
    "use_pch": False,
    "no_implicit_headers": False,
    "gil_not_used": False,
}
"""Torch's keyword options and defaults. Directories, verbosity and precompiled headers are the build pool's affair."""

Want = Callable[[dict[str, Any]], NoReturn]
Request = dict[str, Any]


class BuildUnavailableError(RuntimeError):
    """Something that this lane cannot build; the message says what to do instead."""


def install(builds: Mapping[str, str], want: Want) -> None:
    """Replace torch's builders for the rest of this process. `builds`: path of the library, by request key."""
    loader = Loader(dict(builds), want)
    cpp_extension.load_inline = loader.load_inline  # type: ignore[assignment]  # options are keywords here
    cpp_extension.load = loader.load  # type: ignore[assignment]
    torch.compile = _no_compile
    torch.nn.Module.compile = _no_compile  # type: ignore[method-assign]


def _no_compile(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise BuildUnavailableError(
        "torch.compile is not available to a candidate on this verifier; write the kernel itself, "
        "in Triton or with torch.utils.cpp_extension.load_inline"
    )


class Loader:
    """The two functions, with what they need to know."""

    def __init__(self, builds: Mapping[str, str], want: Want) -> None:
        self._builds = builds
        self._want = want

    def load_inline(
        self,
        name: str,
        cpp_sources: str | Sequence[str],
        cuda_sources: str | Sequence[str] | None = None,
        sycl_sources: str | Sequence[str] | None = None,
        functions: str | Sequence[str] | Mapping[str, str] | None = None,
        extra_cflags: Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """Build from strings, as torch's function of this name does."""
        chosen = _options("load_inline", INLINE_OPTIONS, options)
        exported = exports(functions)
        implicit = not chosen["no_implicit_headers"]
        sources = {
            "main.cpp": compose(
                _listed(cpp_sources),
                exported,
                headers=("torch/extension.h",) if implicit else (),
                guarded=chosen["with_pytorch_error_handling"],
                gil_not_used=chosen["gil_not_used"],
            )
        }
        if cuda_sources or chosen["with_cuda"]:
            headers = ("torch/types.h", "cuda.h", "cuda_runtime.h") if implicit else ()
            sources["cuda.cu"] = compose(_listed(cuda_sources or ()), None, headers=headers, label="cuda_sources")
        if sycl_sources or chosen["with_sycl"]:
            sources["sycl.sycl"] = compose(_listed(sycl_sources or ()), None, headers=(), label="sycl_sources")
        return self._build(name, sources, list(exported or ()), extra_cflags, chosen)

    def load(
        self,
        name: str,
        sources: str | Sequence[str],
        extra_cflags: Sequence[str] | None = None,
        **options: Any,
    ) -> Any:
        """Build from files that the candidate wrote into its private directory, with the headers beside them."""
        chosen = _options("load", COMMON_OPTIONS, options)
        if chosen["is_standalone"]:
            raise BuildUnavailableError("load(is_standalone=True) makes a program, not an extension; leave it out")
        files = read_sources([Path(source) for source in _listed(sources)])
        if chosen["with_cuda"]:
            files.setdefault("cuda.cu", "")
        return self._build(name, files, [], extra_cflags, chosen)

    def _build(
        self,
        name: str,
        sources: dict[str, str],
        functions: list[str],
        cflags: Sequence[str] | None,
        chosen: Mapping[str, Any],
    ) -> Any:
        flags = _flags(cflags, chosen["extra_ldflags"], chosen["extra_include_paths"], sources)
        wanted = request(name, sources, functions, flags)
        return self._get(wanted, is_python_module=chosen["is_python_module"])

    def _get(self, wanted: Request, *, is_python_module: bool) -> Any:
        path = self._builds.get(wanted["key"])
        if path is None:
            self._want(wanted)
        if is_python_module:
            return import_extension(wanted["name"], str(path))
        return load_operators(str(path))


# ---- what to build ----


def request(name: str, sources: Mapping[str, str], functions: Sequence[str], flags: Mapping[str, Any]) -> Request:
    """What `want` is told. The key is for the way back; the build pool keys its cache by the content itself."""
    content = {"name": name, "sources": dict(sources), "functions": list(functions), "flags": dict(flags)}
    text = json.dumps([SHIM_VERSION, torch.__version__, content], sort_keys=True)
    return {**content, "key": hashlib.sha256(text.encode()).hexdigest()}


def exports(functions: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str] | None:
    """The functions to bind and their docstrings; None means that the source binds them itself."""
    if functions is None:
        return None
    if isinstance(functions, str):
        return {functions: functions}
    if isinstance(functions, Mapping):
        return dict(functions)
    if isinstance(functions, list | tuple):
        return {name: name for name in functions}
    raise ValueError(f"Expected 'functions' to be a list or dict, but was {type(functions)}")


def compose(
    texts: Sequence[str],
    exported: Mapping[str, str] | None,
    *,
    headers: Sequence[str],
    guarded: bool = True,
    gil_not_used: bool = False,
    label: str = "cpp_sources",
) -> str:
    """One file of implicit headers, the texts and the bindings, as torch makes it; errors keep the texts' own lines."""
    parts = [f"#include <{header}>" for header in headers]
    for index, text in enumerate(texts):
        parts += [f'#line 1 "{label}[{index}]"', text]
    if exported is not None:
        parts += ['#line 1 "bindings"', *_bindings(exported, guarded=guarded, gil_not_used=gil_not_used)]
    return "\n".join(parts) + "\n"


def _bindings(exported: Mapping[str, str], *, guarded: bool, gil_not_used: bool) -> Iterable[str]:
    option = ", pybind11::mod_gil_not_used()" if gil_not_used else ""
    yield f"PYBIND11_MODULE(TORCH_EXTENSION_NAME, m{option}) {{"
    for name, doc in exported.items():
        function = f"torch::wrap_pybind_function({name})" if guarded else name
        yield f'm.def("{name}", {function}, {json.dumps(doc, ensure_ascii=False)});'
    yield "}"


def read_sources(paths: Sequence[Path]) -> dict[str, str]:
    """The files by name, and every header beside them. Sources come first, in the order given."""
    found = {path.name: _text(path) for path in paths}
    for folder in dict.fromkeys(path.resolve().parent for path in paths):
        for path in sorted(folder.iterdir()):
            if path.suffix in HEADERS and path.is_file():
                found.setdefault(path.name, _text(path))
    return found


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BuildUnavailableError(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are built")
    return path.read_text(encoding="utf-8")


def _options(function: str, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"{function}() got an unexpected keyword argument '{unknown[0]}'")
    return {**known, **given}


def _listed(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str | Path) else list(texts)


def _flags(
    cflags: Sequence[str] | None,
    ldflags: Sequence[str] | None,
    include_paths: Sequence[str] | None,
    sources: dict[str, str],
) -> dict[str, list[str]]:
    """Flags as given. An own include folder travels by its headers, torch's is there anyway, others go to the judge."""
    extra = [flag for folder in include_paths or () for flag in _include(Path(folder), sources)]
    return {"cflags": [*_stripped(cflags), *extra], "ldflags": _stripped(ldflags)}


def _stripped(flags: Sequence[str] | None) -> list[str]:
    return [flag.strip() for flag in ([flags] if isinstance(flags, str) else flags or ()) if flag.strip()]


def _include(folder: Path, sources: dict[str, str]) -> list[str]:
    place = folder.resolve()
    if place.is_relative_to(Path(torch.__file__).parent):
        return []
    if not any(place.is_relative_to(own) for own in (Path.cwd(), Path(tempfile.gettempdir()).resolve())):
        return [f"-I{folder}"]
    for path in sorted(place.iterdir()):
        if path.suffix in HEADERS and path.is_file():
            sources.setdefault(path.name, _text(path))
    return []


# ---- what was built ----


def import_extension(name: str, path: str) -> types.ModuleType:
    """Import a library by its path and show its functions wrapped: counted, and idle under ablation."""
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"{path} is no extension module")
    before = _operators()
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    recorder = ablation.recorder()
    ablation.wrap_operators(recorder, _operators() - before)
    return _wrapped(recorder, module)


def _wrapped(recorder: ablation.Recorder, module: types.ModuleType) -> types.ModuleType:
    shown = types.ModuleType(module.__name__, module.__doc__)
    for name, member in vars(module).items():
        if inspect.isclass(member):
            ablation.wrap_class(recorder, member)
        is_function = callable(member) and not inspect.isclass(member) and not name.startswith("__")
        setattr(shown, name, recorder.wrap(name, member) if is_function else member)
    return shown


def load_operators(path: str) -> str:
    """Load a library that registers operators with torch; they are found under `torch.ops`, wrapped."""
    before = _operators()
    load: Callable[[str], None] = torch.ops.load_library
    load(path)
    ablation.wrap_operators(ablation.recorder(), _operators() - before)
    return path


def _operators() -> set[str]:
    return set(torch._C._dispatch_get_all_op_names())  # noqa: SLF001 - the only list there is
