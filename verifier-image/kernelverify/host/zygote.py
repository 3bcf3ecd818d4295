"""The referee's side of the zygote: the process that candidates are forked from, and what it is started with."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from kernelverify import ipc, resources
from kernelverify.host.candidate import HELLO_S, Candidate, Job
from kernelverify.host.users import NoUserError, User
from kernelverify.resources import HostError
from kernelverify.sandbox import kernel

START_S = 120.0
"""For torch to be imported on a busy machine."""

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "TRITON_INTERPRET": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Of the zygote and of baselines, before the first import: numpy, torch and triton read these once.

A CPU lane beside a GPU must not see it: torch.utils.cpp_extension would start the driver, whose thread no fork
survives. Either of the two CUDA settings alone does not prevent it (measured on an H200 with torch 2.11).

Memory that was freed is kept, never given back to the kernel. By default glibc decides that by what a process happened
to free before, and a code that touches fresh pages each time takes twice as long as the same code that does not: an
exact copy of a reference was judged 2.1 times as fast as it (benchmarks/timing.py).
"""


class Zygote:
    """The process that candidates are forked from; started when needed, again when it died."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: ipc.Channel | None = None
        self.kept: set[int] = set()
        """Children of this process that belong to no candidate."""

    def start(self) -> None:
        """Have a live zygote. Raises HostError."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "kernelverify.guest", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**ENVIRONMENT, "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.kept.add(self._process.pid)
        self._channel = ipc.Channel(ours)
        try:
            ready = self._channel.receive(START_S)
        except ipc.ChannelError as error:
            raise HostError(f"the zygote did not start: {error}") from error
        if ready.get("threads") != 1:
            raise HostError(f"the zygote has {ready.get('threads')} threads; it must have one")

    def spawn(self, job: Job) -> Candidate:
        """Fork a candidate in its sandbox. Raises HostError."""
        self.start()
        try:
            user = User()
        except NoUserError as error:
            raise HostError(str(error)) from error
        try:
            folder = _workdir(self._scratch, job.source, user.uid)
        except BaseException:
            user.release()
            raise
        candidate = Candidate(job, folder, user, self.kept)
        try:
            candidate.begin(self._ask)
        except BaseException:
            candidate.kill()
            raise
        return candidate

    def _ask(self, config: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        nonce = secrets.token_hex(8)
        if self._channel is None:
            raise HostError("the zygote is not running")
        try:
            self._channel.send({"nonce": nonce, "config": config}, descriptors)
            answer = self._channel.receive(HELLO_S)
        except ipc.ChannelError as error:
            self.close()
            raise HostError(f"the zygote does not answer: {error}") from error
        if answer.get("event") != "forked" or answer.get("nonce") != nonce:
            raise HostError(f"the zygote could not fork: {answer.get('message', answer)}")
        return int(answer["pid"])

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.kept.discard(self._process.pid)
        self._process = self._channel = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _workdir(scratch: Path, source: str, uid: int | None) -> Path:
    if lack := resources.full(scratch):
        raise HostError(f"there is no room for a candidate: {lack}")
    folder = Path(tempfile.mkdtemp(prefix="candidate-", dir=scratch))
    path = folder / "candidate.py"
    path.write_text(source, encoding="utf-8")
    for name in ("home", "tmp", "triton", "extensions"):
        (folder / name).mkdir()
    if uid is not None:
        for owned in (folder, *folder.iterdir()):
            os.chown(owned, uid, uid)
    return folder
