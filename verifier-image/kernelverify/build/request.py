"""What is to be built: the candidate's wish, checked. Everything in it is untrusted."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from kernelverify.build import flags
from kernelverify_api.report import BuildMessage

MAX_FILES = 32
MAX_BYTES = 1024 * 1024
"""All sources together, in bytes. The longest kernels of the public corpora are under 60 kB."""
MAX_FLAGS = 64
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
COMPILED = frozenset({".cpp", ".cc", ".cxx", ".c"})
UNAVAILABLE: Mapping[str, str] = {
    ".cu": "CUDA C++ is not available on this verifier yet: it judges on a CPU and has no CUDA compiler. "
    "Write the kernel in C++ (cpp_sources only, with_cuda left out) or in Triton",
    ".sycl": "SYCL is not available on this verifier. Write the kernel in C++ (cpp_sources only) or in Triton",
    ".hip": "HIP is not available on this verifier. Write the kernel in C++ (cpp_sources only) or in Triton",
}


class RefusedError(ValueError):
    """The wish cannot be granted, and it is the candidate's doing. `messages` say what to write instead."""

    def __init__(self, messages: Sequence[BuildMessage]) -> None:
        super().__init__("; ".join(message.message for message in messages))
        self.messages = tuple(messages)


@dataclass(frozen=True)
class BuildRequest:
    """One extension module. `parse` makes it from a message; only then is it checked."""

    name: str
    """Name of the Python module, an identifier: the initialisation function is named after it."""
    sources: Mapping[str, str]
    """Text by file name; those that compile, and the headers beside them."""
    functions: tuple[str, ...] = ()
    """Names that the source binds, for people."""
    cflags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    key: str = field(default="", compare=False)
    """How the asking process names this build. Untrusted: never the cache's key."""

    @property
    def units(self) -> tuple[str, ...]:
        """The files to compile, in order."""
        return tuple(name for name in self.sources if PurePath(name).suffix in COMPILED)

    def digest(self, *context: str) -> str:
        """The cache's key: everything that decides the result, and the context (toolchain, torch, processor)."""
        content = [self.name, sorted(self.sources.items()), self.functions, self.cflags, self.ldflags, context]
        return hashlib.sha256(json.dumps(content).encode(errors="surrogatepass")).hexdigest()


def parse(message: Mapping[str, Any]) -> BuildRequest:
    """Check a `build` message of a candidate. Raises `RefusedError` with every reason, never anything else."""
    options = message.get("flags")
    try:
        request = BuildRequest(
            name=_text(message.get("name"), "name"),
            sources={_text(k, "file name"): _text(v, k) for k, v in dict(message["sources"]).items()},
            functions=_texts(message.get("functions") or (), "functions"),
            cflags=_texts((options or {}).get("cflags") or (), "extra_cflags"),
            ldflags=_texts((options or {}).get("ldflags") or (), "extra_ldflags"),
            key=str(message.get("key", "")),
        )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RefusedError(
            [BuildMessage(file="load_inline", message=f"the build request is malformed: {error}")]
        ) from error
    if problems := [*_names(request), *_sizes(request), *_languages(request), *_flags(request)]:
        raise RefusedError(problems)
    return request


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {type(value).__name__}, not text")
    value.encode()  # lone surrogates cannot be written to a file
    return value


def _texts(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or len(values) > MAX_FLAGS:
        raise TypeError(f"{what} is not a list of at most {MAX_FLAGS} texts")
    return tuple(_text(value, what) for value in values)


def _names(request: BuildRequest) -> list[BuildMessage]:
    problems = []
    if not NAME.fullmatch(request.name):
        problems.append(f"name {request.name[:80]!r} is no identifier; write letters, digits and underscores")
    problems += [
        f"file name {name[:80]!r} is not accepted; write letters, digits, '.', '_', '-', and no folder"
        for name in request.sources
        if not FILE_NAME.fullmatch(name)
    ]
    return [BuildMessage(file="load_inline", message=problem) for problem in problems]


def _sizes(request: BuildRequest) -> list[BuildMessage]:
    total = sum(len(text.encode()) for text in request.sources.values())
    if len(request.sources) <= MAX_FILES and total <= MAX_BYTES:
        return []
    text = f"{len(request.sources)} files with {total} bytes; at most {MAX_FILES} files and {MAX_BYTES} bytes are built"
    return [BuildMessage(file="load_inline", message=text)]


def _languages(request: BuildRequest) -> list[BuildMessage]:
    problems = [
        BuildMessage(file=name, message=UNAVAILABLE[suffix])
        for name in request.sources
        if (suffix := PurePath(name).suffix) in UNAVAILABLE
    ]
    if not problems and not request.units:
        problems = [BuildMessage(file="load", message=f"no source ends with {', '.join(sorted(COMPILED))}")]
    return problems


def _flags(request: BuildRequest) -> list[BuildMessage]:
    bad = flags.refused(request.cflags, request.ldflags)
    return [BuildMessage(file="flags", message=f"flag {flag[:80]!r} is not allowed. {flags.HINT}") for flag in bad]
