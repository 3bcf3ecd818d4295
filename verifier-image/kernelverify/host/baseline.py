"""The baseline's process: trusted, exec'd (never forked: inductor has threads), warm, and timed like a candidate.

Like: on the same way through the same code (calling/call.py), with the same looks at its use of the machine.

load{problem, seed, threads, names} -> ok{names} | error{message, line} | short{message}
open{slot, inputs, outputs}         -> ok        (the descriptors come along)
run{slot, name}                     -> done
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from kernelverify import ipc, resources
from kernelverify.calling import call, tensors
from kernelverify.host import census, memory, problem
from kernelverify.host.zygote import ENVIRONMENT
from kernelverify.resources import HostError
from kernelverify.sandbox import kernel
from kernelverify_api import request

COMPILE = "compile"
NOBODY, NOWHERE = -1, Path("/nonexistent")
LOAD_S, RUN_S = 300.0, 300.0
"""A compiled baseline compiles on its first call: 2 to 30 s on a quiet machine."""


class Baseline:
    """The referee's side. Errors of the process are infrastructure, those of the problem are the problem's."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: ipc.Channel | None = None
        self._outputs: dict[int, memory.Region] = {}
        self.pid = 0

    def start(self, loaded: request.Problem, seed: int, names: Sequence[str]) -> None:
        """Load the problem; raises ProblemError for a name that it does not offer."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-B", "-m", "kernelverify.host.baseline", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(self._threads)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.pid = self._process.pid
        self._channel = ipc.Channel(ours, limit=4 << 20)
        message = {"op": "load", "problem": loaded.model_dump(), "seed": seed, "threads": self._threads}
        self._ask({**message, "names": list(names)}, LOAD_S)

    def open(self, slot: int, inputs: memory.Region, outputs: memory.Region) -> None:
        self._outputs[slot] = outputs
        places = {"inputs": [inputs.size, *inputs.header], "outputs": [outputs.size, *outputs.header]}
        self._ask({"op": "open", "slot": slot, **places}, LOAD_S, [inputs.fd, outputs.fd])

    def run(self, slot: int, name: str, into: Sequence[Tensor] | None = None) -> tuple[float, list[Tensor]]:
        """One call: seconds by the referee's clock, until its own copy is complete, and that copy."""
        outputs = self._outputs[slot]
        outputs.poison()
        start = time.perf_counter()
        self._signal(signal.SIGCONT)
        self._ask({"op": "run", "slot": slot, "name": name}, RUN_S)
        copies = outputs.read_private(into)
        return time.perf_counter() - start, copies

    def pause(self) -> None:
        """Stop it until its next call, as the candidate is stopped: to wake up costs both the same."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> None:
        """As at a candidate, for the time that it takes from both."""
        census.excess(self.pid, NOBODY, NOWHERE, census.Limits(), ())

    def _ask(self, message: dict[str, Any], timeout: float, descriptors: Sequence[int] = ()) -> dict[str, Any]:
        if self._channel is None:
            raise HostError("the baseline's process is not running")
        try:
            self._channel.send(message, descriptors)
            answer = census.watched(self._channel, time.monotonic() + timeout, self._look)
        except ipc.ChannelError as error:
            raise HostError(f"the baseline's process failed: {error}") from error
        if answer.get("event") == "short":
            raise HostError(f"the baseline's process failed: {answer['message']}")
        if answer.get("event") == "error":
            raise problem.ProblemError(str(answer["message"]), answer.get("line"))
        return answer


class _Server:
    """The process's side."""

    def __init__(self, channel: ipc.Channel) -> None:
        self._channel = channel
        self._problem: problem.LoadedProblem
        self._functions: dict[str, Callable[..., Any]] = {}
        self._slots: dict[int, tuple[tensors.Mapped, tensors.Mapped]] = {}
        self._tried: set[str] = set()

    def serve(self) -> None:
        handlers = {"load": self._load, "open": self._open, "run": self._run}
        while True:
            try:
                message, descriptors = self._channel.receive_with_fds()
            except ipc.Closed:
                return
            try:
                answer = handlers[message["op"]](message, descriptors)
            except problem.ProblemError as error:
                answer = {"event": "error", "message": error.message, "line": error.line}
            except HostError as error:
                answer = {"event": "short", "message": str(error)}
            except Exception as error:  # noqa: BLE001 - a baseline is the problem's code; its error is told, not lost
                answer = _told(error)
            self._channel.send(answer)

    def _load(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        torch.set_num_threads(message["threads"])
        self._problem = loaded = problem.load(request.Problem(**message["problem"]))
        model = loaded.make_model(message["seed"])
        offered: dict[str, Callable[..., Any]] = {problem.EAGER: model, **loaded.baselines()}
        if COMPILE in message["names"]:
            offered.setdefault(COMPILE, torch.compile(model))
        for name in message["names"]:
            if name not in offered:
                known = ", ".join([*offered, COMPILE])
                raise problem.ProblemError(f"no baseline {name!r}; this problem offers {known}")
            self._functions[name] = offered[name]
        return {"event": "ok"}

    def _open(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        (size, *header), (out_size, *out_header) = message["inputs"], message["outputs"]
        self._slots[message["slot"]] = (
            tensors.attach(descriptors[0], size, header, writable=False),
            tensors.attach(descriptors[1], out_size, out_header, writable=True),
        )
        return {"event": "ok"}

    def _run(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        inputs, outputs = self._slots[message["slot"]]
        name = message["name"]
        what = f"baseline {name!r}"
        try:
            if name not in self._tried:
                self._functions[name] = _harmless(self._functions[name], inputs.tree())
                self._tried.add(name)
            performed = call.perform(self._functions[name], inputs, outputs)
        except (Exception, SystemExit):
            with self._problem.blame(what):  # here, so that a call that goes well does not pay for it
                raise
        if not performed.delivered:
            raise problem.ProblemError(
                f"{what} returns {_kinds(performed.leaves)}; Model.forward returns {_kinds(outputs.tensors)}"
            )
        return {"event": "done", "skeleton": performed.skeleton}  # as a candidate's, for the time that it takes


def _told(error: Exception) -> dict[str, Any]:
    if resources.shortage(error):
        return {"event": "short", "message": resources.told(error)}
    return {"event": "error", "message": f"a baseline raised {type(error).__name__}: {str(error)[:500]}"}


def _harmless(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function, on copies if a first call shows that it writes into inputs: the region would kill it for that."""
    copies = tree_map(_copied, arguments)
    with torch.no_grad():
        function(*copies)
    if not any(isinstance(t, Tensor) and t._version for t in tree_leaves(copies)):  # noqa: SLF001 - no public name
        return function
    return lambda *given: function(*tree_map(_copied, given))


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _kinds(results: Sequence[object]) -> str:
    """Types and shapes, for a message."""
    shown = (f"{t.dtype}{tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__ for t in results)
    return ", ".join(shown).replace("torch.", "") or "no tensor"


if __name__ == "__main__":
    # stopped between its turns, it would not see that its referee is gone
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _Server(ipc.Channel.from_fd(int(sys.argv[1]), limit=4 << 20)).serve()
