"""The referee's side of a candidate: starts it, speaks with it, bounds it, and reads how it died.

Everything that arrives from a candidate is a claim. What counts is what the referee reads itself: its clock, and its
private copy of the output bytes, which is complete before the clock stops.
"""

import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import kernelverify
from kernelverify import ipc, resources, sandbox, scratch
from kernelverify.host import census
from kernelverify.host.drain import Drain
from kernelverify.host.memory import Region
from kernelverify.host.users import User
from kernelverify.resources import MIB, HostError

HELLO_S = 30.0
TELL_S = 10.0
"""For a few words about a call that is over."""
SUDDEN = frozenset({"exception", "exit", "signal"})
"""Ends of a candidate that a full disk may bring about."""
MOST_PARTS = 256
MOST_ANSWER = 2 << 20
"""Characters of one answer, all parts together: what is sent on must fit into the service's messages."""


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


class Candidate:
    """One candidate process, from fork to kill. Use as a context manager: leaving it ends everything it started."""

    def __init__(self, job: Job, workdir: Path, user: User, kept: Collection[int]) -> None:
        """`kept`: children of the referee that belong to no candidate."""
        self.sandbox: dict[str, str] = {}
        self.pid = 0
        self._job, self._workdir, self._kept = job, workdir, kept
        self._user, self._uid = user, user.uid
        self._channel: ipc.Channel | None = None
        self._logs: list[Drain] = []
        self._stage = "start"
        self._slots: list[tuple[Region, Region]] = []
        self._over: Crash | None = None
        self._paused = False
        self._kills_before = resources.out_of_memory_kills()

    def begin(self, ask: Any) -> None:
        ours, theirs = socket.socketpair()
        self._channel = ipc.Channel(ours)
        with theirs:
            self._logs = [Drain(), Drain()]
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
        if self._over is not None:
            return self._over
        self._stage = "import"
        with Region.inputs(list(arguments), writable=True) as region:
            given = {"op": "arguments", "size": region.size, "header": region.header}
            taken = self._call(given, HELLO_S, [region.fd])
        if not isinstance(taken, dict):  # nothing of the candidate's has run yet
            words = getattr(taken, "message", taken)
            raise HostError(f"a candidate process could not take its arguments: {words}; it may need more memory")
        answer = self._call({"op": "load", "seed": seed, "dtype": dtype}, timeout)
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
        """One call on poisoned outputs: Called, BuildWanted or Crash. A paused candidate goes on once its clock runs.

        `idle`: its kernels do nothing in this call.
        """
        self._stage = "forward"
        outputs = self._slots[slot][1]
        outputs.poison()
        message = {"op": "run", "slot": slot, "idle": idle, "nonce": secrets.token_hex(8)}
        start = time.perf_counter()  # first: who wakes up sees the inputs, and may keep this process from its core
        self.resume()
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
            census.end(self.pid, self._uid, self._kept)
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
        """The answer to one request (a dict), BuildWanted, or Crash. Raises HostError where the machine is to blame."""
        answer = self._asked(message, timeout, descriptors)
        if isinstance(answer, Crash) and answer.kind in SUDDEN and (lack := self._lack()):
            raise HostError(f"a candidate ended where there was no room for it: {lack}")
        return answer

    def _lack(self) -> str:
        """Why there never was room on disk for it, or nothing."""
        if not resources.full(self._workdir):
            return ""
        return resources.full(self._workdir, census.written(self.pid, self._uid, self._workdir, self._kept))

    def _asked(self, message: dict[str, Any], timeout: float, descriptors: Sequence[int]) -> Any:
        """As `_call`, whoever is to blame. After a Crash that ended the process the candidate is no more."""
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
        found = census.excess(self.pid, self._uid, self._workdir, self._job.limits, self._kept)
        if found:
            raise _ExcessError(*found)

    def _death(self) -> Crash:
        """How a process that closed its channel ended."""
        deadline = time.monotonic() + 2
        while (found := census.last(self.pid)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if found is None:
            return Crash("protocol", self._stage, message="it closed its channel and went on")
        status, peak = found
        line = _line_of_fault(self.logs[1])
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU:
                return Crash("timeout", self._stage, message="used up its CPU time")
            if number == signal.SIGKILL and resources.out_of_memory_kills() > self._kills_before:
                return self._out_of_memory(peak)
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            return Crash("signal", self._stage, name, f"died by {name}", line)
        return Crash("exit", self._stage, message=f"left with exit code {os.WEXITSTATUS(status)}", line=line)

    def _out_of_memory(self, peak: int) -> Crash:
        """The kernel's choice when memory is short is the candidate, by its score, whoever holds most of it.

        `peak`: of the process that died; what it started may hold more.
        """
        held = peak + census.held(self.pid, self._uid, self._kept)
        most = min(self._job.limits.memory_bytes, resources.memory())
        if held < most / 2:
            raise HostError(
                f"the machine's memory ran out, and the kernel ended a candidate that held {held // MIB} MiB "
                f"of the {most // MIB} MiB that it might have held: {resources.MEMORY}"
            )
        return Crash("memory", self._stage, message=f"held {held // MIB} MiB when the machine's memory ran out")

    def _broken(self, message: str) -> Crash:
        return self._ended(Crash("protocol", self._stage, message=message))

    def _ended(self, crash: Crash) -> Crash:
        self._over = crash
        census.end(self.pid, self._uid, self._kept)
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
