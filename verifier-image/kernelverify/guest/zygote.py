"""A process with torch and triton imported, from which each candidate is forked: 15 ms instead of 2 s.

It runs no candidate code and holds no secret: what it is told (folders, limits) a candidate may know. It must have
exactly one thread, or a forked child may hang in a lock that a lost thread held; so the environment that keeps OpenMP
and OpenBLAS at one thread is set by the referee before the first import, and the count is asserted before each fork.

The candidate is a *grand*child whose parent exits at once. The kernel then makes it a child of the nearest subreaper,
the referee, which alone waits for it and reads how it died.

    fork{nonce, config} + 3 descriptors (channel, stdout, stderr)  ->  forked{nonce, pid} | error{nonce, message}
"""

import errno
import gc
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import torch.utils.cpp_extension  # lazily imported parts of torch would be imported in every candidate anew
import triton.testing

from kernelverify import ipc, resources
from kernelverify.guest import candidate, torch_ops, triton_shim
from kernelverify.sandbox import kernel

__all__ = ["serve", "torch", "triton"]


def serve(channel: ipc.Channel) -> None:
    """Fork candidates until the referee closes the channel."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    triton_shim.install()
    _warm()
    gc.collect()
    gc.freeze()  # or each candidate's first collection copies every page of the imported modules
    channel.send({"event": "ready", "threads": threads()})
    while True:
        try:
            request, descriptors = channel.receive_with_fds()
        except ipc.Closed:
            return
        channel.send(_answer(channel, request, descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _warm() -> None:
    """Have torch import what a dispatch mode needs (5 s of it), here once instead of in every candidate."""
    with torch_ops.counter(0):
        torch.nn.Linear(1, 1)(torch.ones(1, 1))


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _answer(channel: ipc.Channel, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    count = threads()
    if count != 1:
        message = f"the zygote has {count} threads, a forked candidate could hang"
        return {"event": "error", "nonce": request["nonce"], "message": message}
    try:
        pid = _fork_twice(channel, request["config"], descriptors)
    except OSError as error:
        return {"event": "error", "nonce": request["nonce"], "message": resources.told(error)}
    return {"event": "forked", "nonce": request["nonce"], "pid": pid}


def _fork_twice(channel: ipc.Channel, config: dict[str, Any], descriptors: list[int]) -> int:
    """The candidate's number. Raises OSError when there is no room for another process."""
    referee = os.getppid()
    read, write = os.pipe()
    with os.fdopen(read) as pipe:
        try:
            middle = os.fork()
            if middle == 0:
                _fork_again(channel, config, descriptors, referee, write)
        finally:
            os.close(write)
        os.waitpid(middle, 0)  # from here on the candidate is the referee's child
        found = int(pipe.readline())
    if found < 0:
        raise OSError(-found, os.strerror(-found))
    return found


def _fork_again(
    channel: ipc.Channel, config: dict[str, Any], descriptors: list[int], referee: int, write: int
) -> NoReturn:
    """The process in between: it tells the candidate's number, or a negative error's, and ends."""
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid == 0:
        _become_candidate(channel, config, descriptors, referee)
    try:
        os.write(write, str(pid).encode())
    finally:
        os._exit(0)


def _become_candidate(channel: ipc.Channel, config: dict[str, Any], descriptors: list[int], referee: int) -> NoReturn:
    """Never returns, whatever happens: an escaped exception would go on as a second zygote."""
    try:
        channel.close()
        candidate.main(config, descriptors, referee)
    finally:
        os._exit(candidate.EXIT_BROKEN)
