"""Compiles what candidates ask for: once each, in the sandbox, into a cache that candidates can only read.

The cache is keyed by content (sources, flags, tools), so two searches share a result and none can spoil another's. A
header precompiled once per set of flags makes the second build four times faster; on any trouble with it the build
runs once more without, so that it can never cause a false reject.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kernelverify import sandbox
from kernelverify.build import errors, flags, request, toolchain
from kernelverify.sandbox import identity
from kernelverify_api.report import BuildMessage

TIMEOUT_S = 240.0
CPU_S = 300
GIB = 1 << 30
WORKER_GIB = 3.5
"""Memory that one compiler over torch's headers may need at its peak."""
CACHE_BYTES = 4 * GIB
UID = 59_999
HEADER = "torch/extension.h"


@dataclass(frozen=True)
class BuildResult:
    ok: bool
    path: str = ""
    seconds: float = 0.0
    cache_hit: bool = False
    errors: tuple[BuildMessage, ...] = ()

    def as_message(self) -> dict[str, Any]:
        """As the referee takes it."""
        return {
            "ok": self.ok,
            "path": self.path,
            "seconds": self.seconds,
            "cache_hit": self.cache_hit,
            "errors": [e.model_dump() for e in self.errors],
        }


class Builder:
    """The build pool. Raises ToolchainError when nothing can be compiled here at all."""

    def __init__(self, cache: Path, workers: int | None = None) -> None:
        self._cache = cache
        self._slots = asyncio.Semaphore(workers or default_workers())
        self._running: dict[str, asyncio.Task[BuildResult]] = {}
        cache.mkdir(parents=True, exist_ok=True)

    async def build(self, message: Mapping[str, Any]) -> BuildResult:
        """The library for a candidate's `build` message; identical builds share one run."""
        start = time.monotonic()
        try:
            wanted = request.parse(message)
        except request.RefusedError as error:
            return BuildResult(ok=False, errors=error.messages)
        tools = toolchain.find()
        digest = wanted.digest(tools.identity)
        path = self._cache / digest / f"{wanted.name}.so"
        if path.exists():
            os.utime(path.parent)
            return BuildResult(ok=True, path=str(path), cache_hit=True, seconds=time.monotonic() - start)
        if digest not in self._running:
            task = asyncio.create_task(self._compile(wanted, tools, path))
            self._running[digest] = task
            task.add_done_callback(lambda _: self._running.pop(digest, None))
        return await asyncio.shield(self._running[digest])

    async def _compile(self, wanted: request.BuildRequest, tools: toolchain.Toolchain, path: Path) -> BuildResult:
        async with self._slots:
            start = time.monotonic()
            with _Workshop() as shop:
                header = await self._header(wanted, tools)
                output = await _attempt(shop, wanted, tools, header)
                if output is not None and header is not None and not errors.blames_source(output):
                    output = await _attempt(shop, wanted, tools, None)
                seconds = time.monotonic() - start
                if output is not None:
                    return BuildResult(ok=False, seconds=seconds, errors=errors.first(output))
                _publish(shop.folder / "module.so", path)
            _evict(self._cache, CACHE_BYTES)
            return BuildResult(ok=True, path=str(path), seconds=seconds)

    async def _header(self, wanted: request.BuildRequest, tools: toolchain.Toolchain) -> Path | None:
        """The folder of the precompiled header for these flags; None where it cannot be made."""
        chosen = flags.for_header(wanted.cflags)
        digest = hashlib.sha256(" ".join([tools.identity, toolchain.STANDARD, *chosen]).encode()).hexdigest()
        ready = self._cache / "headers" / digest
        if (ready / f"{HEADER}.gch").exists():
            os.utime(ready)
            return ready
        with _Workshop() as shop:
            made = shop.folder / "extension.gch"
            command = [tools.compiler, *_common(wanted.name, tools), *chosen, "-x", "c++-header"]
            failed = await _run(shop, tools, [*command, str(tools.torch / "include" / HEADER), "-o", str(made)])
            if failed is not None:
                return None
            (shop.folder / "out" / "torch").mkdir(parents=True)
            made.rename(shop.folder / "out" / f"{HEADER}.gch")
            _publish(shop.folder / "out", ready)
        return ready


def default_workers() -> int:
    """As many as cores and memory bear."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return max(1, min(os.cpu_count() or 1, int(memory / WORKER_GIB)))


class _Workshop:
    """A private folder for one compiler, owned by the user it runs as."""

    def __enter__(self) -> Self:
        # not in the cache: that may lie in a home folder, where gcc's access() check fails for another user
        self.folder = Path(tempfile.mkdtemp(prefix="kernelverify-build-"))
        if identity.can_change():
            os.chown(self.folder, UID, UID)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _common(name: str, tools: toolchain.Toolchain) -> list[str]:
    macros = [f"-DTORCH_EXTENSION_NAME={name}", "-DTORCH_API_INCLUDE_EXTENSION_H"]
    return [*macros, "-fPIC", toolchain.STANDARD, *tools.includes]


async def _attempt(
    shop: _Workshop, wanted: request.BuildRequest, tools: toolchain.Toolchain, header: Path | None
) -> str | None:
    """Compile and link into the workshop; the compiler's output when that fails."""
    for name, text in wanted.sources.items():
        (shop.folder / name).write_text(text, encoding="utf-8")
        (shop.folder / name).chmod(0o644)
    first = [f"-I{header}"] if header else []
    objects = []
    for unit in wanted.units:
        target = f"{unit}.o"
        command = [tools.compiler, *first, *_common(wanted.name, tools), *flags.for_compiler(wanted.cflags), "-I."]
        failed = await _run(shop, tools, [*command, "-c", unit, "-o", target], extra=[str(header)] if header else [])
        if failed is not None:
            return failed
        objects.append(target)
    libraries = [*tools.libraries, *flags.for_linker(wanted.cflags, wanted.ldflags)]
    return await _run(shop, tools, [tools.compiler, "-shared", *objects, "-o", "module.so", *libraries])


async def _run(
    shop: _Workshop, tools: toolchain.Toolchain, argv: Sequence[str], extra: Sequence[str] = ()
) -> str | None:
    """Run one tool in the sandbox; its output when it fails. Never outlives this call."""
    policy = sandbox.Policy(
        read_only=(*sandbox.SYSTEM, *tools.reads, *extra),
        read_write=(str(shop.folder),),
        cpu_seconds=CPU_S,
        file_bytes=GIB,
        uid=UID if identity.can_change() else None,
        change_modes=True,
    )
    process = await asyncio.create_subprocess_exec(
        *sandbox.command(policy, argv),
        cwd=shop.folder,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TMPDIR": str(shop.folder), "LANG": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"error: the compiler took longer than {TIMEOUT_S:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
    return None if process.returncode == 0 else output.decode("utf-8", "replace")


def _publish(made: Path, place: Path) -> None:
    """Into the cache in one step, read-only and readable by every candidate."""
    staging = Path(tempfile.mkdtemp(dir=place.parent.parent if made.is_file() else _made(place.parent)))
    target = staging / place.name
    shutil.move(made, target)
    for path in (staging, target, *target.rglob("*")):
        owner = os.geteuid()
        os.chown(path, owner, owner if owner == 0 else -1)
        path.chmod(0o755 if path.is_dir() else 0o444)
    try:
        (staging if made.suffix == ".so" else target).rename(place.parent if made.suffix == ".so" else place)
    except OSError:  # somebody else was faster, with the same content
        shutil.rmtree(staging, ignore_errors=True)
    if made.suffix != ".so":
        shutil.rmtree(staging, ignore_errors=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _evict(cache: Path, most: int) -> None:
    """Forget the longest unused until the rest fits."""
    kept = []
    for folder in [*cache.glob("[0-9a-f]*"), *(cache / "headers").glob("*")]:
        if folder.is_dir():
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            kept.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in kept)
    for _, size, folder in sorted(kept):
        if total <= most:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
