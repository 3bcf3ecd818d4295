"""Compiles what candidates ask for: once each, in the sandbox, into a cache that candidates can only read.

The cache is keyed by content (sources, flags, tools), so two searches share a result and none can spoil another's.

Torch's `extension.h` costs 20 s of compiling, whatever the kernel. So there are two rungs:
1. Lean: our own header of that name (headers/torch/extension.h) in front of torch's, bindings compiled once for each
   signature, and for flags that come again and again a precompiled header, made in the background.
2. On *any* error, whoever seems to have caused it, once more exactly as torch does it: only that may reject.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelverify import resources
from kernelverify.build import bindings, errors, flags, request, toolchain
from kernelverify.build.compiler import GIB, CompilerError, Workshop
from kernelverify.resources import HostError
from kernelverify_api.report import BuildMessage

WORKER_GIB = 3.5
"""Memory that one compiler over torch's headers may need at its peak."""
CACHE_BYTES = 2 * GIB
"""Results and bindings: a quarter of a MiB each."""
HEADER_BYTES = 3 * GIB // 2
"""Precompiled headers: three, of 460 MB each."""
HEADER_WORTH = 4
"""Builds with the same flags before a header is made for them. It costs as much as three builds save."""
HEADER = "torch/extension.h"


@dataclass(frozen=True)
class BuildResult:
    ok: bool
    path: str = ""
    seconds: float = 0.0
    cache_hit: bool = False
    lean: bool = False
    """Whether the short way sufficed."""
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
    """The build pool. Raises HostError where the machine is to blame, also when nothing can be compiled at all."""

    def __init__(self, cache: Path, workers: int | None = None) -> None:
        self._cache = cache
        self._slots = asyncio.Semaphore(workers or default_workers())
        self._running: dict[str, asyncio.Task[BuildResult]] = {}
        self._making: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._flags: Counter[tuple[str, ...]] = Counter()
        self._background: set[asyncio.Task[None]] = set()
        _need_folder(cache)

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

    def prepare(self) -> None:
        """Make the usual bindings in the background, while the first model still thinks."""
        self._later(self._usual_bindings())

    async def close(self) -> None:
        """End what runs in the background."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _compile(self, wanted: request.BuildRequest, tools: toolchain.Toolchain, path: Path) -> BuildResult:
        async with self._slots:
            start = time.monotonic()
            with Workshop(tools) as shop:
                for name, text in wanted.sources.items():
                    shop.write(name, text)
                try:
                    lean = await self._climb(shop, wanted)
                except CompilerError as error:
                    seconds = time.monotonic() - start
                    return BuildResult(ok=False, seconds=seconds, errors=errors.first(error.output))
                _publish(shop.out, path.parent)
        _evict([f for f in self._cache.glob("[0-9a-f]*") if f.is_dir()], CACHE_BYTES)
        return BuildResult(ok=True, path=str(path), seconds=time.monotonic() - start, lean=lean)

    async def _climb(self, shop: Workshop, wanted: request.BuildRequest) -> bool:
        """The lean way where it can work, then torch's own; says whether the lean one sufficed."""
        if bindings.needs_everything(wanted.sources.values()):
            await _plain(shop, wanted)
            return False
        try:
            await self._lean(shop, wanted)
        except CompilerError as first:
            # an error in the candidate's own text is most likely its own: then the first one of torch's headers will do
            stop = ("-Wfatal-errors",) if errors.blames_source(first.output) else ()
            try:
                await _plain(shop, wanted, stop)
            except CompilerError as second:
                raise CompilerError(errors.fuller(first.output, second.output)) from second
            return False
        return True

    async def _lean(self, shop: Workshop, wanted: request.BuildRequest) -> None:
        """Raises CompilerError."""
        ahead = self._header(wanted, shop.tools)
        folders = [str(ahead)] if ahead else []
        shop.reads += folders
        include = [f"-I{folder}" for folder in (*folders, toolchain.HEADERS)]
        objects = await _objects(shop, wanted, include)
        symbols = await shop.run(["nm", "-C", "--undefined-only", *objects])
        if bindings.has_module(symbols):
            made = [await self._bound(shop.tools, bindings.usual(), module=True)]
            if more := bindings.unusual(symbols):
                made.append(await self._bound(shop.tools, more))
            shop.reads += [str(path.parent) for path in made]
            objects += map(str, made)
        await _link(shop, wanted, objects)

    async def _bound(
        self, tools: toolchain.Toolchain, instantiations: Sequence[str], *, module: bool = False, polite: bool = False
    ) -> Path:
        """The object with these bindings, made once. Raises CompilerError."""
        text = bindings.source(instantiations, module=module)
        digest = hashlib.sha256(f"{tools.identity} {text}".encode()).hexdigest()
        path = self._cache / digest / "bindings.o"
        async with self._making[digest]:
            if path.exists():
                os.utime(path.parent)
                return path
            with Workshop(tools) as shop:
                shop.write("bindings.cpp", text)
                command = [tools.compiler, "-I", str(toolchain.HEADERS), *_common(tools), "-O2"]
                await shop.run([*command, "-c", "bindings.cpp", "-o", "out/bindings.o"], polite=polite)
                _publish(shop.out, path.parent)
        return path

    async def _usual_bindings(self) -> None:
        async with self._slots:
            await self._bound(toolchain.find(), bindings.usual(), module=True, polite=True)

    def _header(self, wanted: request.BuildRequest, tools: toolchain.Toolchain) -> Path | None:
        """The folder of a precompiled header for these flags, where there is one; often enough asked, one is made."""
        chosen = flags.for_header(wanted.cflags)
        place = self._cache / "headers" / _digest(tools.identity, *chosen)
        if place.exists():
            os.utime(place)
            return place
        self._flags[chosen] += 1
        if self._flags[chosen] == HEADER_WORTH:
            self._later(self._precompile(tools, chosen, place))
        return None

    async def _precompile(self, tools: toolchain.Toolchain, chosen: Sequence[str], place: Path) -> None:
        async with self._slots:
            with Workshop(tools) as shop:
                (shop.out / "torch").mkdir(mode=0o777)
                (shop.out / "torch").chmod(0o777)
                command = [tools.compiler, *_common(tools), *chosen, "-x", "c++-header"]
                header = str(toolchain.HEADERS / HEADER)
                await shop.run([*command, header, "-o", f"out/{HEADER}.gch"], polite=True)
                _publish(shop.out, place)
        _evict(list(place.parent.iterdir()), HEADER_BYTES)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background. What fails there costs time only: whoever needs it makes it, or goes without."""

        async def quietly() -> None:
            try:
                await work
            except (CompilerError, HostError, OSError):
                return

        task = asyncio.create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _need_folder(cache: Path) -> None:
    """Raises HostError: better now than as the end of the first build."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            file.write(b"room")
    except OSError as error:
        raise HostError(
            f"the cache folder {cache} cannot be written ({error.strerror}); "
            "set KERNELVERIFY_CACHE to a folder that can, with 4 GiB of room"
        ) from error


def default_workers() -> int:
    """As many as cores and memory bear: those of our container, where it has limits."""
    return max(1, min(len(os.sched_getaffinity(0)), int(resources.memory() / GIB / WORKER_GIB)))


async def _plain(shop: Workshop, wanted: request.BuildRequest, more: Sequence[str] = ()) -> None:
    """As torch does it. Raises CompilerError."""
    await _link(shop, wanted, await _objects(shop, wanted, more))


async def _objects(shop: Workshop, wanted: request.BuildRequest, first: Sequence[str]) -> list[str]:
    objects = []
    for unit in wanted.units:
        own = [f"-DTORCH_EXTENSION_NAME={wanted.name}", *flags.for_compiler(wanted.cflags), "-I."]
        command = [shop.tools.compiler, *first, *_common(shop.tools), *own]
        await shop.run([*command, "-c", unit, "-o", f"{unit}.o"])
        objects.append(f"{unit}.o")
    return objects


async def _link(shop: Workshop, wanted: request.BuildRequest, objects: Sequence[str]) -> None:
    libraries = [*shop.tools.libraries, *flags.for_linker(wanted.cflags, wanted.ldflags)]
    await shop.run([shop.tools.compiler, "-shared", *objects, "-o", f"out/{wanted.name}.so", *libraries])


def _common(tools: toolchain.Toolchain) -> list[str]:
    """Without the module's name: gcc refuses a precompiled header that was made under another."""
    return ["-DTORCH_API_INCLUDE_EXTENSION_H", "-fPIC", toolchain.STANDARD, *tools.includes]


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _publish(made: Path, place: Path) -> None:
    """A folder into the cache in one step, read-only and readable by every candidate."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=place.parent, prefix="new-"))
    target = staging / place.name
    shutil.move(made, target)
    for path in (target, *target.rglob("*")):
        owner = os.geteuid()
        os.chown(path, owner, owner if owner == 0 else -1)
        path.chmod(0o755 if path.is_dir() else 0o444)
    try:
        target.rename(place)
    except OSError:  # somebody else was faster, with the same content
        if not place.exists():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _evict(folders: Sequence[Path], most: int) -> None:
    """Forget the longest unused until the rest fits. What another verifier forgets meanwhile is no failure."""
    kept = []
    for folder in folders:
        with suppress(OSError):
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            kept.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in kept)
    for _, size, folder in sorted(kept):
        if total <= most:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total -= size
