"""Runs compilers in the sandbox: one private folder for each build, nothing else to write."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kernelverify import resources, sandbox, scratch
from kernelverify.build import toolchain
from kernelverify.resources import HostError
from kernelverify.sandbox import identity

TIMEOUT_S = 240.0
CPU_S = 300
GIB = 1 << 30
LEAST_MEMORY, MOST_MEMORY = 4 * GIB, 6 * GIB
"""Of address space for one tool, on a small machine and on any other: torch's headers need up to 3.5 GiB. A source that
needs more meets its own limit, not the machine's."""
CANNOT_START = frozenset({126, 127})
"""Exit codes of what stands in front of a tool (kernelverify.sandbox, nice); no compiler of ours has them."""
MOST_OUTPUT, CHUNK = 1 << 20, 1 << 16
"""Bytes of a tool's output that are kept, and read at a time."""
UID = 59_999
POLITE = ("nice", "-n", "10")
"""In front of what nobody waits for: a lane may be timing on the same cores."""


class CompilerError(Exception):
    """A tool failed, on a machine that had what it needs; `output` is what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(output[-300:])
        self.output = output


@dataclass
class Workshop:
    """A private folder, owned by the user that compilers run as. `out` is what will be published."""

    tools: toolchain.Toolchain
    reads: list[str] = field(default_factory=list)
    """Folders of the cache that this build may read: never the whole, where other candidates' libraries are."""
    folder: Path = field(init=False)

    def __enter__(self) -> Self:
        # not in the cache: that may lie in a home folder, where gcc's access() check fails for another user
        self.folder = Path(tempfile.mkdtemp(prefix=f"{scratch.PREFIX}{os.getpid()}-build-"))
        self.out.mkdir()
        if identity.can_change():
            os.chown(self.folder, UID, UID)
            os.chown(self.out, UID, UID)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)

    async def run(self, argv: Sequence[str], *, polite: bool = False) -> str:
        """Run one tool in the sandbox and return what it prints. Never outlives this call.

        Raises CompilerError, and HostError where the machine is to blame.
        """
        policy = sandbox.Policy(
            read_only=(*sandbox.SYSTEM, *self.tools.reads, *self.reads),
            read_write=(str(self.folder),),
            cpu_seconds=CPU_S,
            file_bytes=GIB,
            address_bytes=min(MOST_MEMORY, max(LEAST_MEMORY, resources.memory() * 3 // 4)),
            uid=UID if identity.can_change() else None,
            change_modes=True,
        )
        kills_before = resources.out_of_memory_kills()
        process = await asyncio.create_subprocess_exec(
            *(POLITE if polite else ()),
            *sandbox.command(policy, argv),
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TMPDIR": str(self.folder), "LANG": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                raw = await _first_of(process.stdout)
                await process.wait()
        except TimeoutError:
            raise CompilerError(f"error: the compiler took longer than {TIMEOUT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)
                await process.wait()
        output = raw.decode("utf-8", "replace")
        if process.returncode != 0:
            self._excuse(argv[0], process.returncode, output, kills_before)
            raise CompilerError(output)
        return output

    def _excuse(self, tool: str, code: int | None, output: str, kills_before: int) -> None:
        """Raises HostError if the tool failed for what the machine lacks. Its words may be a candidate's (#error)."""
        if code in CANNOT_START:
            raise HostError(f"{tool} does not start: {output[-300:].strip()}")
        if resources.out_of_memory_kills() > kills_before:
            raise HostError(f"the machine's memory ran out while {tool} ran: {resources.MEMORY}")
        written = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        if lack := resources.full(self.folder, written):
            raise HostError(f"{tool} had no room to work: {lack}")


async def _first_of(stream: asyncio.StreamReader | None) -> bytes:
    """All of a tool's output is read, or it would block, but only the beginning kept: templates can fill gigabytes."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(CHUNK)):
        kept += chunk[: MOST_OUTPUT - len(kept)]
    return bytes(kept)
