"""What a search needs of the machine it runs on: a clock, and a verifier of its own.

The verifier is a process, `kernelverify serve`, on a free port of loopback. It is started again on the same port when
it dies, so that its clients only see it vanish and come back. It never outlives the search: it is ended in order, and
the kernel ends it when the search is killed.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from kernelsearch.search.ports import InfrastructureError

START_SECONDS = 120.0
"""For the process to listen: it imports no torch, but a laptop may be busy."""
END_SECONDS = 10.0
"""For it to end in order; then it is killed."""
RESTART_SECONDS = (1.0, 30.0)
"""Before the first restart, and at most; doubled in between while it does not stay up."""
STAYED_UP_SECONDS = 60.0
LOOK_SECONDS = 0.05
LARGEST_LOG = 8 << 20
"""Bytes; a longer one is begun anew by the next run."""
GREETING = "listening on "
PR_SET_PDEATHSIG = 1
USAGE = 2
"""Exit code of a verifier that was started with something it does not know."""


class MonotonicClock:
    """The search clock: goes on where an earlier process of the same search left it, once it is started."""

    def __init__(self, used: float = 0.0) -> None:
        self._used = used
        self._started: float | None = None

    def start(self) -> None:
        """From now on time passes."""
        self._started = time.monotonic()

    def now(self) -> float:
        """See `ports.Clock`."""
        return self._used if self._started is None else self._used + time.monotonic() - self._started

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock`."""
        await asyncio.sleep(max(0.0, seconds))


class VerifierUsageError(Exception):
    """The verifier refused how it was started: a matter of the manifest. The message is its own."""


@dataclass
class LocalVerifier:
    """A supervised `kernelverify serve`. Begin with `start`, end with `stop`."""

    command: Sequence[str]
    log: Path
    say: Callable[[str], None]
    """Told when it died and is started again."""
    first_delay: float = RESTART_SECONDS[0]
    url: str = ""
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _supervisor: asyncio.Task[None] | None = field(default=None, init=False)

    async def start(self) -> str:
        """Its URL, once it listens. Raises InfrastructureError or VerifierUsageError."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.unlink()
        self.url = await self._launch(0)
        self._supervisor = asyncio.create_task(self._supervise(), name="supervisor of the verifier")
        return self.url

    async def stop(self, patience: float = END_SECONDS) -> None:
        """End it in order, or by force when that takes too long."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        if self._process is not None:
            await _end(self._process, patience)

    async def _supervise(self) -> None:
        delay = self.first_delay
        while True:
            began = time.monotonic()
            code = await self._process.wait() if self._process else 0
            self._sweep()
            delay = self.first_delay if time.monotonic() - began > STAYED_UP_SECONDS else delay
            self.say(f"the verifier {_ended(code)}; starting it again in {delay:.0f} s (its log: {self.log})")
            await asyncio.sleep(delay)
            delay = min(2 * delay, RESTART_SECONDS[1])
            try:
                await self._launch(int(self.url.rpartition(":")[2]))
            except (InfrastructureError, VerifierUsageError) as error:
                self.say(str(error))

    async def _launch(self, port: int) -> str:
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = await _spawn([*self.command, "--port", str(port)], log)
        return await _greeting(self._process, self.log, begin)

    def _sweep(self) -> None:
        """What a killed verifier left in its process group."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


@asynccontextmanager
async def verifier(device: str, log: Path, say: Callable[[str], None]) -> AsyncIterator[str]:
    """A verifier for as long as the block runs; gives its URL."""
    command = (_executable(), "serve", "--device", device, "--host", "127.0.0.1")
    local = LocalVerifier(command, log, say)
    patience = END_SECONDS
    try:
        yield await local.start()
    except asyncio.CancelledError:
        patience = 0.5  # the user asked twice
        raise
    finally:
        await local.stop(patience)


def _executable() -> str:
    beside = Path(sys.executable).with_name("kernelverify")
    found = str(beside) if beside.exists() else shutil.which("kernelverify")
    if found is None:
        raise InfrastructureError(
            "kernelverify is not installed beside kernelsearch: install kernelsearch[verifier], or give --verifier-url"
        )
    return found


async def _spawn(command: Sequence[str], log: IO[bytes]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_dies_with(os.getpid()),
            start_new_session=True,  # a Ctrl-C at the terminal is for the search, which then ends its verifier in order
        )
    except OSError as error:
        raise InfrastructureError(
            f"{command[0]} cannot be started: {error.strerror}; is it installed whole?"
        ) from error


def _dies_with(parent: int) -> Callable[[], None]:
    """For the child: end when the parent is gone, also when that happened a moment ago.

    SIGTERM, so that the verifier can end its own children; each of those also ends by itself when its parent is gone.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


async def _greeting(process: asyncio.subprocess.Process, log: Path, begin: int) -> str:
    """The URL that it writes to the log once it listens.

    A file and not a pipe: it is there for people afterwards, and never full while nobody reads it.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        ended = process.returncode
        if url := _listening(log, begin):
            return url
        if ended is not None:
            raise _never_listened(ended, log, begin)
        await asyncio.sleep(LOOK_SECONDS)
    await _end(process, 0.0)
    raise InfrastructureError(f"the verifier did not listen within {START_SECONDS:.0f} s; its log is {log}")


def _listening(log: Path, begin: int) -> str:
    greetings = (line for line in _said(log, begin) if line.startswith(GREETING))
    return next(greetings, "").removeprefix(GREETING).strip()


def _never_listened(code: int, log: Path, begin: int) -> Exception:
    words = next((line.strip()[:500] for line in reversed(_said(log, begin)) if line.strip()), "it said nothing")
    if code == USAGE:
        return VerifierUsageError(words)
    return InfrastructureError(f"the verifier {_ended(code)} before it listened: {words}; its log is {log}")


def _said(log: Path, begin: int) -> list[str]:
    """Whole lines of the log from there on."""
    with log.open("rb") as file:
        file.seek(begin)
        return [line.decode(errors="replace") for line in file.read(65536).splitlines(keepends=True) if b"\n" in line]


async def _end(process: asyncio.subprocess.Process, patience: float) -> int:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        return await asyncio.wait_for(process.wait(), max(patience, 0.01))
    except TimeoutError:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return await process.wait()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
