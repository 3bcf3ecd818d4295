"""The candidate's process: closes the sandbox around itself, loads one source, answers calls until it is killed.

Whatever happens here may be the candidate's doing, since its code shares the process; so nothing said here decides
anything. Clocks and functions of the loop are bound before candidate code runs, which stops accidents, not attackers.

    hello{pid, sandbox}                             once, when the sandbox is closed
    arguments{inputs}                 -> ok | error             (the judge's error: nothing of the candidate has run)
    load{seed, dtype}                 -> loaded{state} | error | build
    state{inputs}                     -> ok | error
    open{slot, inputs, outputs}       -> ok                     (the descriptors come along)
    run{slot, idle}                   -> done{skeleton} | error | build   (idle: without its kernels)
    tell                              -> told{...}              (of the last run, once the referee's clock has stopped)
    stop                              -> the process ends

Every request has a nonce that its answer repeats. An answer beyond the channel's limit goes as `part`s and `whole`.
"""

import faulthandler
import io
import json
import linecache
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from kernelverify import ipc, sandbox
from kernelverify.calling import call, tensors
from kernelverify.guest import ablation, build_shim, torch_ops

EXIT_BROKEN = 70
"""Exit code when the loop itself broke: never a way out that a candidate would take by accident."""

MODULE = "candidate"
PART = 8_000
"""Characters of a long answer per message: at most 4 bytes each, twice as many when escaped."""
LIMIT_TEXT = 4_000
LIMIT_COUNTED = 64
"""Kernels and operators that are named in an answer."""


def main(config: dict[str, Any], descriptors: list[int], referee: int) -> None:
    """Run as the process that the zygote forked; returns when told to stop."""
    channel_fd, stdout, stderr = descriptors
    _take_streams(stdout, stderr)
    _wait_for_parent(referee)
    _prepare(config)
    policy = sandbox.Policy.from_json(config["policy"])
    channel = ipc.Channel.from_fd(channel_fd)
    try:
        found = sandbox.apply(policy.closing(keep=(0, 1, 2, channel_fd), parent=referee))
    except sandbox.SandboxError as error:
        channel.send({"event": "broken", "message": str(error)})
        return
    faulthandler.enable(all_threads=False)
    channel.send({"event": "hello", "pid": os.getpid(), "sandbox": found})
    Candidate(channel, config).serve()


def _take_streams(stdout: int, stderr: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(descriptor, target)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what a crash leaves in a buffer is lost


def _wait_for_parent(referee: int) -> None:
    """Until the process in between is gone: a death signal asked for earlier would be the wrong parent's."""
    deadline = time.monotonic() + 10
    while os.getppid() != referee:
        if time.monotonic() > deadline:
            os._exit(EXIT_BROKEN)
        time.sleep(0.0002)


def _prepare(config: dict[str, Any]) -> None:
    """Fresh folders and the thread count, before any library of the candidate reads them."""
    os.chdir(config["workdir"])
    os.environ.update(config["environment"])
    torch.set_num_threads(config["threads"])
    torch.seed()


class Candidate:
    """One source, loaded once, called many times."""

    def __init__(self, channel: ipc.Channel, config: dict[str, Any]) -> None:
        self._channel = channel
        self._path = Path(config["source"])
        self._count_above: int | None = config["count_ops_above"]
        self._nonce = ""
        self._stage = "start"
        self._arguments: Any = ()
        self._model: Any = None
        self._slots: dict[int, tuple[tensors.Mapped, tensors.Mapped]] = {}
        self._last: tuple[call.Performed, tuple[tensors.Mapped, tensors.Mapped], torch_ops.Tally | None] | None = None
        self._recorder = ablation.install(config["ablation"])
        self._recorder.noting = self._count_above is not None
        build_shim.install(config["builds"], self._want)

    def serve(self, exit_now: Callable[[int], NoReturn] = os._exit) -> None:
        handlers: dict[str, Callable[..., dict[str, Any]]] = {
            "arguments": self._take_arguments,
            "load": self._load,
            "state": self._load_state,
            "open": self._open,
            "run": self._run,
            "tell": self._tell,
        }
        while True:
            message, descriptors = self._channel.receive_with_fds()
            self._nonce = message["nonce"]
            if message["op"] == "stop":
                exit_now(0)  # no exit handlers of the candidate
            try:
                answer = handlers[message["op"]](message, descriptors)
            except BaseException as error:  # noqa: BLE001 - whatever candidate code raises, SystemExit included
                answer = self._failure(error)
            self._reply(answer)

    def _take_arguments(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._arguments = tensors.attach(descriptors[0], message["size"], message["header"], writable=True).tree()
        return {"event": "ok"}

    def _load(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        arguments, self._arguments = self._arguments, ()
        self._stage = "import"
        _hide_judge()
        module = _import(self._path)
        self._stage = "construct"
        if message["seed"] is not None:
            torch.manual_seed(message["seed"])
        factory = getattr(module, "ModelNew", None)
        if factory is None:
            raise AttributeError("the source defines no ModelNew; write `class ModelNew(torch.nn.Module)`")
        self._model = _settled(factory(*arguments), message["dtype"])
        return {"event": "loaded", "state": _state_of(self._model)}

    def _load_state(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        self._stage = "load_state"
        state = tensors.attach(descriptors[0], message["size"], message["header"], writable=False).tree()
        with torch.no_grad():
            self._model.load_state_dict(state, strict=True)
        return {"event": "ok"}

    def _open(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        inputs, outputs = message["inputs"], message["outputs"]
        self._slots[message["slot"]] = (
            tensors.attach(descriptors[0], inputs["size"], inputs["header"], writable=inputs["writable"]),
            tensors.attach(descriptors[1], outputs["size"], outputs["header"], writable=True),
        )
        return {"event": "ok"}

    def _run(
        self,
        message: dict[str, Any],
        _descriptors: list[int],
        perform: Callable[..., call.Performed] = call.perform,
    ) -> dict[str, Any]:
        self._stage, self._last = "forward", None
        inputs, outputs = self._slots[message["slot"]]
        tally = None
        if self._count_above is None and not message["idle"]:  # the timed way, with nothing around it
            performed = perform(self._model, inputs, outputs)
        else:
            with self._counting() as tally, self._recorder.idle(wanted=message["idle"]):
                performed = perform(self._model, inputs, outputs)
        self._last = (performed, (inputs, outputs), tally)
        return {"event": "done", "skeleton": performed.skeleton}

    def _tell(self, _message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        if self._last is None:
            raise RuntimeError("there was no call to tell of")
        performed, (inputs, outputs), tally = self._last
        self._last = None
        return {
            "event": "told",
            "self_us": performed.seconds * 1e6,
            "outputs": [tensors.describe(leaf, inputs, outputs) for leaf in performed.leaves],
            "kernels": list(self._recorder.launched)[:LIMIT_COUNTED],
            "largest": self._recorder.largest,
            "torch_ops": dict(tally.counts.most_common(LIMIT_COUNTED)) if tally else {},
        }

    def _counting(self) -> AbstractContextManager[torch_ops.Tally | None]:
        return nullcontext() if self._count_above is None else torch_ops.counter(self._count_above)

    def _want(self, wanted: dict[str, Any]) -> NoReturn:
        """Ask for a build. This process ends: compilers run elsewhere, and a new candidate starts with the result."""
        self._reply({"event": "build", "build": wanted})
        os._exit(0)

    def _failure(self, error: BaseException) -> dict[str, Any]:
        return {
            "event": "error",
            "stage": self._stage,
            "type": type(error).__name__[:200],
            "message": _text_of(error),
            "line": _line_of(error, str(self._path)),
            "traceback": _traceback_of(error),
        }

    def _reply(self, answer: dict[str, Any], dump: Callable[..., str] = json.dumps) -> None:
        try:
            self._channel.send(answer | {"nonce": self._nonce})
        except ipc.Malformed:
            for part in _parts(dump(answer)):
                self._channel.send({"event": "part", "nonce": self._nonce, "text": part})
            self._channel.send({"event": "whole", "nonce": self._nonce})


def _hide_judge() -> None:
    """No kernel needs the judge's modules: an import of them fails. Frames and gc still show their objects."""
    for name in [name for name in sys.modules if name.split(".")[0] == "kernelverify"]:
        sys.modules[name] = None  # type: ignore[assignment]  # as the import system documents it


def _import(path: Path) -> types.ModuleType:
    """As `import candidate` would, from a file: Triton reads a kernel's source through `inspect`."""
    source = path.read_text(encoding="utf-8")
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    linecache.checkcache(str(path))
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - this process exists to do that
    return module


def _settled(model: Any, dtype: str | None) -> Any:
    """Floats in the problem's dtype, and inference mode: in training mode a reference may fail against itself."""
    if isinstance(model, nn.Module):
        return (model if dtype is None else model.to(getattr(torch, dtype))).eval()
    if not callable(model):
        raise TypeError(f"ModelNew() is a {type(model).__name__}; it must be a torch.nn.Module")
    return model


def _state_of(model: Any) -> list[list[Any]]:
    if not isinstance(model, nn.Module):
        return []
    state = model.state_dict()
    return [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state.items() if torch.is_tensor(v)]


def _parts(text: str) -> Iterator[str]:
    return (text[i : i + PART] for i in range(0, len(text), PART))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:LIMIT_TEXT]
    except BaseException:  # noqa: BLE001 - the exception's class is the candidate's
        return "(its message cannot be shown)"


def _line_of(error: BaseException, path: str) -> int | None:
    """The innermost line of the candidate's source on the way to the error."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines else None


def _traceback_of(error: BaseException) -> str:
    """The end of the story; frames of this module are nobody's business."""
    try:
        shown = traceback.TracebackException.from_exception(error, limit=-12)
        shown.stack = traceback.StackSummary.from_list([f for f in shown.stack if f.filename != __file__])
        return "".join(shown.format())[-LIMIT_TEXT:]
    except BaseException:  # noqa: BLE001 - as above
        return ""
