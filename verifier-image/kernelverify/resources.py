"""What the judge itself takes from its machine, and whose fault it is when that runs out: never the candidate's.

A candidate has limits of its own (host/census.py), and to exhaust those is its doing. Memory, room on disk, descriptors
and processes that the *machine* lacks are infrastructure: a HostError, which names the resource and the remedy. Words
are not trusted where they are a candidate's: whether a disk is full or the kernel ended somebody is looked up here.

Standard library only, torch's own errors are known by their text: the service and the guest import this module too.
"""

import errno
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import statvfs
from pathlib import Path

MIB = 1 << 20
CONTAINERS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds its limit of memory, in bytes: cgroups of version 2 and 1."""
LEAST_ROOM = 32 * MIB
"""Bytes that a candidate or a compiler must find on disk, what it wrote itself included: less is no room at all."""

MEMORY = "no memory is left; give the verifier more, or run less beside it"
DISK = "no room is left on disk; make room, or set TMPDIR and KERNELVERIFY_CACHE to a larger one"
DESCRIPTORS = "no file descriptor is left; raise the limit (ulimit -n) of the verifier"
PROCESSES = "no process or thread can be started; raise the limit on processes (ulimit -u, pids of the pod)"
RIGHTS = "the verifier may not write there; set TMPDIR and KERNELVERIFY_CACHE to folders of its own"

_BY_NUMBER = {
    errno.ENOMEM: MEMORY,
    errno.ENOBUFS: MEMORY,
    errno.ENOSPC: DISK,
    errno.EDQUOT: DISK,
    errno.EMFILE: DESCRIPTORS,
    errno.ENFILE: DESCRIPTORS,
    errno.EAGAIN: PROCESSES,
}
_RIGHTS = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})
_BY_TEXT = {"DefaultCPUAllocator: can't allocate memory": MEMORY, "can't start new thread": PROCESSES}
"""Of RuntimeErrors: torch's and threading's."""
_ASKED = re.compile(r"tried to allocate (\d{1,30}) bytes")


class HostError(Exception):
    """The judge or its machine failed: infrastructure, never the candidate's fault. The message names the remedy."""


def shortage(error: BaseException) -> str:
    """What ran out and what helps, in one sentence; nothing when the error tells of something else."""
    match error:
        case MemoryError():
            return MEMORY
        case OSError():
            return _BY_NUMBER.get(error.errno or 0, "")
        case RuntimeError():
            return next((told for text, told in _BY_TEXT.items() if text in str(error)), "")
    return ""


def more_than_all(error: BaseException) -> bool:
    """Whether one tensor was to be larger than all the memory there is: that no neighbour is to blame for."""
    asked = _ASKED.search(str(error))
    return asked is not None and int(asked.group(1)) > memory()


def told(error: BaseException) -> str:
    """An error of the judge's own, with the remedy where one is known."""
    remedy = shortage(error) or (RIGHTS if isinstance(error, OSError) and error.errno in _RIGHTS else "")
    words = str(error)[:300] or type(error).__name__
    return f"{words}: {remedy}" if remedy else words


@contextmanager
def own(what: str) -> Iterator[None]:
    """Around what the judge does for itself: an error of the system in there is a HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(f"{what} failed: {told(error)}") from error
    except (MemoryError, RuntimeError) as error:
        if not shortage(error):
            raise
        raise HostError(f"{what} failed: {told(error)}") from error


def full(folder: Path, written: float = 0) -> str:
    """Why whoever wrote so many bytes below a folder never had room there, or nothing."""
    place = statvfs(folder)
    room = place.f_bavail * place.f_frsize + written
    if room >= LEAST_ROOM:
        return ""
    return f"{int(room) // MIB} MiB below {folder}, at least {LEAST_ROOM // MIB} are needed: {DISK}"


def memory() -> int:
    """Bytes of memory that the verifier could have at most: the machine's, or its container's where that is less."""
    return int(min(_field(Path("/proc/meminfo"), "MemTotal:") * 1024, *map(_limit, CONTAINERS)))


def _limit(file: Path) -> float:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # none, or `max`
        return math.inf


def out_of_memory_kills() -> int:
    """How many processes the kernel has ended for lack of memory since the machine started, containers' included."""
    return _field(Path("/proc/vmstat"), "oom_kill")


def _field(file: Path, name: str) -> int:
    """A number from a file of names and numbers; 0 where there is none."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(words[1]) for words in lines if len(words) > 1 and words[0] == name), 0)
