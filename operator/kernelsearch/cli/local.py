"""What a search needs of its surroundings on one machine: a verifier process, a clock, a folder."""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from kernelsearch.search.ports import InfrastructureError, LiveSpec

START_S = 60.0
RESTART_S = 1.0
_PR_SET_PDEATHSIG = 1


class MonotonicClock:
    """The search clock: goes on where an earlier process of the same search stopped."""

    def __init__(self, used: float = 0.0) -> None:
        self._zero = time.monotonic() - used

    def restart(self, used: float) -> None:
        """Everything is ready: from here on the search's time runs."""
        self._zero = time.monotonic() - used

    def now(self) -> float:
        return time.monotonic() - self._zero

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Folder:
    """The output folder, and the search's `Progress`: facts go into `status.json`, the best kernel into `best/`."""

    def __init__(self, path: Path, spec: LiveSpec) -> None:
        self.path = path
        self._spec = spec
        self._best = ""
        self.stopped = False

    async def publish(self, facts: Mapping[str, Any]) -> LiveSpec:
        try:
            write(self.path / "status.json", json.dumps(facts, indent=1, ensure_ascii=False))
        except OSError as error:
            raise InfrastructureError(f"cannot write {self.path / 'status.json'}: {error}; make room there") from error
        spec = self._spec
        return LiveSpec(
            deadline=spec.deadline,
            stop=self.stopped,
            max_attempts=spec.max_attempts,
            max_tokens=spec.max_tokens,
            target_speedup=spec.target_speedup,
        )


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@asynccontextmanager
async def verifier(threads: int = 0, tell: Callable[[str], None] | None = None) -> AsyncIterator[str]:
    """A verifier of this search's own on a port of loopback; restarted there when it dies, ended with the search."""
    process, url = await _start(0, threads)
    port = int(url.rsplit(":", 1)[1])

    async def supervise() -> None:
        nonlocal process
        while True:
            code = await process.wait()
            if tell is not None:
                tell(f"the verifier ended with {code}; starting it again")
            await asyncio.sleep(RESTART_S)
            try:
                process, _ = await _start(port, threads)
            except InfrastructureError as error:
                if tell is not None:
                    tell(str(error))

    task = asyncio.create_task(supervise())
    try:
        yield url
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _start(port: int, threads: int) -> tuple[asyncio.subprocess.Process, str]:
    beside = Path(sys.executable).with_name("kernelverify")
    command = str(beside) if beside.exists() else shutil.which("kernelverify")
    if command is None:
        raise InfrastructureError("no kernelverify here; install kernelsearch[verifier] or use --verifier-url")
    process = await asyncio.create_subprocess_exec(
        *(command, "serve", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KERNELVERIFY_THREADS": str(threads)},
        preexec_fn=_die_with_parent,
        start_new_session=True,  # Ctrl-C is for the search, which ends the verifier in order
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode().strip()
    except TimeoutError:
        line = ""
    if not line.startswith("listening on "):
        process.kill()
        raise InfrastructureError(f"the verifier did not start: {line or 'it said nothing'}; see its messages above")
    return process, line.removeprefix("listening on ")


def _die_with_parent() -> None:
    """No orphan, even when the search is killed with SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
