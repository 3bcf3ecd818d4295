"""The referee's side of a candidate: starts it, speaks with it, bounds it, and reads how it died.

Everything that arrives from a candidate is a claim. What counts is what the referee reads itself: its clock, and its
private copy of the output bytes, which is complete before the clock stops.
"""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import kernelverify
from kernelverify import ipc, sandbox, scratch
from kernelverify.host import census
from kernelverify.host.drain import Drain
from kernelverify.host.memory import Region
from kernelverify.host.users import NoUserError, User
from kernelverify.sandbox import kernel

START_S = 120.0
"""For torch to be imported on a busy machine."""
HELLO_S = 30.0
TELL_S = 10.0
"""For a few words about a call that is over."""
MOST_PARTS = 256
MOST_ANSWER = 2 << 20
"""Characters of one answer, all parts together: what is sent on must fit into the service's messages."""

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


class HostError(Exception):
    """The zygote or the sandbox failed: infrastructure, never the candidate's fault."""


@dataclass(frozen=True)
class Crash:
    """Why a call brought no answer."""

    kind: str
    """`exception`, `signal`, `exit`, `timeout`, `memory`, `tasks`, `disk`, `protocol`."""
    stage: str
    type: str = ""
    message: str = ""
    line: int | None = None
    traceback: str = ""


@dataclass(frozen=True)
class BuildWanted:
    """The candidate asked for a build and ended; start another one with the result."""

    request: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    state: tuple[tuple[str, tuple[int, ...], str], ...]
    """Name, shape and dtype of each tensor in the candidate's state_dict."""


@dataclass(frozen=True)
class Called:
    """One answered call, by what the referee saw itself."""

    elapsed_s: float
    """The referee's clock, from before the request to after its own copy was complete."""
    outputs: list[Tensor]
    """Private copies."""
    skeleton: Any
    """Of the answer, with whatever in it is no tensor: it came before the clock stopped."""
    unwritten: tuple[int, ...] = ()
    """Outputs that are still poison."""


@dataclass(frozen=True)
class Ran(Called):
    """One answered call, and what the candidate's process says of it."""

    self_us: float = 0.0
    metas: Sequence[Mapping[str, Any]] = ()
    kernels: tuple[str, ...] = ()
    torch_ops: Mapping[str, int] = field(default_factory=dict)
    largest_launch: int = 0
    """Elements of the largest tensor that a custom kernel touched."""


@dataclass(frozen=True)
class Job:
    """What a candidate process is started with."""

    source: str
    builds: Mapping[str, str] = field(default_factory=dict)
    """Path of each library by the key of the request for it."""
    ablation: str | None = None
    threads: int = 1
    count_ops_above: int | None = None
    limits: census.Limits = field(default_factory=census.Limits)
    cpu_seconds: int = 600


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

    def spawn(self, job: Job) -> "Candidate":
        """Fork a candidate in its sandbox. Raises HostError."""
        self.start()
        try:
            user = User()
        except NoUserError as error:
            raise HostError(str(error)) from error
        candidate = Candidate(self, job, _workdir(self._scratch, job.source, user.uid), user)
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


class Candidate:
    """One candidate process, from fork to kill. Use as a context manager: leaving it ends everything it started."""

    def __init__(self, zygote: Zygote, job: Job, workdir: Path, user: User) -> None:
        self.sandbox: dict[str, str] = {}
        self.pid = 0
        self._zygote, self._job, self._workdir = zygote, job, workdir
        self._user, self._uid = user, user.uid
        self._channel: ipc.Channel | None = None
        self._logs: list[Drain] = []
        self._stage = "start"
        self._slots: list[tuple[Region, Region]] = []
        self._over: Crash | None = None
        self._paused = False

    def begin(self, ask: Any) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ipc.Channel(ours)
        self._logs = [Drain(), Drain()]
        with theirs:
            self.pid = ask(self._config(), [theirs.fileno(), *(drain.write_end for drain in self._logs)])
        for drain in self._logs:
            drain.start()
        try:
            hello = self._channel.receive(HELLO_S)
        except ipc.ChannelError as error:
            raise HostError(f"a candidate process did not come up: {error}; {self.logs[1][-500:]}") from error
        if hello.get("event") != "hello":
            raise HostError(f"the sandbox could not be closed: {hello.get('message')}")
        self.sandbox = {str(k): str(v) for k, v in dict(hello.get("sandbox", {})).items()}

    def load(self, arguments: Sequence[Any], seed: int | None, dtype: str | None, timeout: float) -> Any:
        """Import and construct: Loaded, BuildWanted or Crash."""
        self._stage = "import"
        with Region.inputs(list(arguments), writable=True) as region:
            message = {"op": "load", "size": region.size, "header": region.header, "seed": seed, "dtype": dtype}
            answer = self._call(message, timeout, [region.fd])
        if not isinstance(answer, dict):
            return answer
        try:
            state = tuple((str(n), tuple(int(i) for i in shape), str(d)) for n, shape, d in answer["state"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return self._broken(f"no state in its answer: {error}")
        return Loaded(state)

    def load_state(self, state: Mapping[str, Tensor], timeout: float) -> Crash | None:
        """Give it the reference's weights."""
        self._stage = "load_state"
        with Region.inputs(dict(state)) as region:
            message = {"op": "state", "size": region.size, "header": region.header}
            answer = self._call(message, timeout, [region.fd])
        return answer if isinstance(answer, Crash) else None

    def open(self, inputs: Region, outputs: Region, timeout: float = 30.0) -> int | Crash:
        """Share a pair of regions; the number of the slot."""
        slot = len(self._slots)
        message = {
            "op": "open",
            "slot": slot,
            "inputs": {"size": inputs.size, "header": inputs.header, "writable": inputs.writable},
            "outputs": {"size": outputs.size, "header": outputs.header},
        }
        answer = self._call(message, timeout, [inputs.fd, outputs.fd])
        if isinstance(answer, Crash):
            return answer
        self._slots.append((inputs, outputs))
        return slot

    def run(self, slot: int, timeout: float, into: Sequence[Tensor] | None = None, *, idle: bool = False) -> Any:
        """`call`, and at once `tell`: Ran, BuildWanted or Crash."""
        called = self.call(slot, timeout, into, idle=idle)
        return self.tell(called) if isinstance(called, Called) else called

    def call(self, slot: int, timeout: float, into: Sequence[Tensor] | None = None, *, idle: bool = False) -> Any:
        """One call on poisoned outputs: Called, BuildWanted or Crash. A paused candidate goes on as its clock starts.

        `idle`: its kernels do nothing in this call.
        """
        self._stage = "forward"
        outputs = self._slots[slot][1]
        outputs.poison()
        message = {"op": "run", "slot": slot, "idle": idle, "nonce": secrets.token_hex(8)}
        self.resume()
        start = time.perf_counter()
        answer = self._call(message, timeout)
        if not isinstance(answer, dict):
            return answer
        copies = outputs.read_private(into)
        elapsed = time.perf_counter() - start
        if not outputs.canaries_ok():
            return Crash("exception", "forward", "OutOfBounds", "the kernel wrote outside its output")
        return Called(elapsed, copies, answer.get("skeleton"), tuple(outputs.unwritten(copies)))

    def tell(self, called: "Called") -> Any:
        """What the last call's answer is, in the candidate's words, without haste: Ran or Crash.

        Whoever times must not ask before the baseline's turn is over: what the candidate does meanwhile is free.
        """
        told = self._call({"op": "tell"}, TELL_S)
        if not isinstance(told, dict):
            return told
        try:
            return Ran(
                elapsed_s=called.elapsed_s,
                self_us=float(told["self_us"]),
                outputs=called.outputs,
                metas=[dict(meta) for meta in told["outputs"]],
                skeleton=called.skeleton,
                kernels=tuple(str(name)[:200] for name in told["kernels"]),
                torch_ops={str(k)[:200]: int(v) for k, v in dict(told["torch_ops"]).items()},
                unwritten=called.unwritten,
                largest_launch=int(told["largest"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return self._broken(f"its answer to a call is malformed: {error}")

    def pause(self) -> None:
        """Stop all that it started until its next call.

        It must neither disturb the baseline nor work ahead of its clock on inputs that are being written. None of its
        processes can leave the group, nor be woken (seccomp).
        """
        if not self._paused:
            self._paused = True
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._signal(signal.SIGCONT)

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._over is not None

    @property
    def logs(self) -> tuple[str, str]:
        return self._logs[0].text, self._logs[1].text

    def kill(self) -> None:
        """End it and everything it started; forget its folder."""
        if self.pid:
            census.end(self.pid, self._uid, self._zygote.kept)
            self.pid = 0
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for drain in self._logs:
            drain.finish()
        self._user.release()
        scratch.remove(self._workdir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _config(self) -> dict[str, Any]:
        job, folder = self._job, str(self._workdir)
        libraries = sorted({str(Path(path).parent) for path in job.builds.values()})
        policy = sandbox.Policy(
            read_only=(*sandbox.SYSTEM, *sandbox.interpreter(), _package_folder(), *libraries),
            read_write=(folder,),
            cpu_seconds=job.cpu_seconds,
            uid=self._uid,
            tasks=job.limits.tasks,
        )
        return {
            "workdir": folder,
            "source": f"{folder}/candidate.py",
            "environment": _environment(folder, job.threads),
            "threads": job.threads,
            "count_ops_above": job.count_ops_above,
            "ablation": job.ablation,
            "builds": dict(job.builds),
            "policy": policy.to_json(),
        }

    def _call(self, message: dict[str, Any], timeout: float, descriptors: Sequence[int] = ()) -> Any:
        """The answer to one request (a dict), BuildWanted, or Crash. After a Crash the candidate is no more."""
        if self._over is not None or self._channel is None:
            return self._over or Crash("exit", self._stage, message="the candidate has ended")
        nonce = message.get("nonce") or secrets.token_hex(8)
        self.resume()
        try:
            self._channel.send({**message, "nonce": nonce}, descriptors)
            answer = self._whole_answer(nonce, time.monotonic() + timeout)
        except ipc.TimedOut:
            return self._ended(Crash("timeout", self._stage, message=f"no answer within {timeout:.3g} s"))
        except ipc.Closed:
            return self._ended(self._death())
        except ipc.Malformed as error:
            return self._broken(str(error))
        except _ExcessError as error:
            return self._ended(Crash(error.kind, self._stage, message=error.message))
        return self._understood(answer)

    def _understood(self, answer: dict[str, Any]) -> Any:
        match answer.get("event"):
            case "error":
                return _raised(answer, self._stage)
            case "build" if isinstance(answer.get("build"), dict):
                self._over = Crash("exit", self._stage, message="the candidate has asked for a build")
                return BuildWanted(answer["build"])
            case "ok" | "loaded" | "done" | "told":
                return answer
        return self._broken(f"unknown event {str(answer.get('event'))[:80]!r}")

    def _whole_answer(self, nonce: str, deadline: float) -> dict[str, Any]:
        """One answer, put together from its parts where it is long."""
        parts: list[str] = []
        while True:
            answer = self._answer(deadline)
            if answer.get("nonce") != nonce:
                raise ipc.Malformed("an answer without the call's nonce")
            if answer.get("event") == "part" and len(parts) < MOST_PARTS:
                parts.append(str(answer.get("text", "")))
                if sum(map(len, parts)) > MOST_ANSWER:
                    raise ipc.Malformed(f"an answer of more than {MOST_ANSWER} characters")
            elif answer.get("event") == "whole":
                return ipc.decode("".join(parts).encode("utf-8", "replace"))
            else:
                return answer

    def _answer(self, deadline: float) -> dict[str, Any]:
        """Wait for a message, counting what the candidate uses meanwhile."""
        assert self._channel is not None  # noqa: S101 - for the type checker: `_call` has looked
        return census.watched(self._channel, deadline, self._look)

    def _look(self) -> None:
        found = census.excess(self.pid, self._uid, self._workdir, self._job.limits, self._zygote.kept)
        if found:
            raise _ExcessError(*found)

    def _death(self) -> Crash:
        """How a process that closed its channel ended."""
        deadline = time.monotonic() + 2
        while (status := census.reap(self.pid)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if status is None:
            return Crash("protocol", self._stage, message="it closed its channel and went on")
        line = _line_of_fault(self.logs[1])
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return Crash("timeout", self._stage, message="used up its CPU time")
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            return Crash("signal", self._stage, name, f"died by {name}", line)
        return Crash("exit", self._stage, message=f"left with exit code {os.WEXITSTATUS(status)}", line=line)

    def _broken(self, message: str) -> Crash:
        return self._ended(Crash("protocol", self._stage, message=message))

    def _ended(self, crash: Crash) -> Crash:
        self._over = crash
        census.end(self.pid, self._uid, self._zygote.kept)
        return crash

    def _signal(self, number: signal.Signals) -> None:
        if self._over is None and self.pid:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                return


class _ExcessError(Exception):
    """The candidate used more than it may."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def _raised(answer: Mapping[str, Any], stage: str) -> Crash:
    line = answer.get("line")
    return Crash(
        kind="exception",
        stage=str(answer.get("stage", stage))[:40],
        type=str(answer.get("type", ""))[:200],
        message=str(answer.get("message", ""))[:4000],
        line=line if isinstance(line, int) else None,
        traceback=str(answer.get("traceback", ""))[:4000],
    )


def _line_of_fault(stderr: str) -> int | None:
    """The candidate's line in faulthandler's last words."""
    found = re.search(r'candidate\.py", line (\d{1,7})', stderr)
    return int(found.group(1)) if found else None


def _workdir(scratch: Path, source: str, uid: int | None) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="candidate-", dir=scratch))
    path = folder / "candidate.py"
    path.write_text(source, encoding="utf-8")
    for name in ("home", "tmp", "triton", "extensions"):
        (folder / name).mkdir()
    if uid is not None:
        for owned in (folder, *folder.iterdir()):
            os.chown(owned, uid, uid)
    return folder


def _environment(folder: str, threads: int) -> dict[str, str]:
    return {
        "HOME": f"{folder}/home",
        "TMPDIR": f"{folder}/tmp",  # noqa: S108 - inside the private folder
        "TRITON_CACHE_DIR": f"{folder}/triton",
        "TORCH_EXTENSIONS_DIR": f"{folder}/extensions",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/tmp",  # noqa: S108
        "OMP_NUM_THREADS": str(threads),
    }


def _package_folder() -> str:
    return str(Path(kernelverify.__file__).parent.parent)


def dtype_name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")
