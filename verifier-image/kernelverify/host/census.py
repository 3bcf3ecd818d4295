"""What a candidate's processes use, counted from outside, and their end.

Rlimits bound one process; a candidate may have many, and a rlimit on tasks would count the user's others. So the
referee counts: tasks, memory, private disk. Every process that a candidate started is found, whatever it did to hide:
by its own user id where it has one, else as a descendant, or as an orphan that the kernel gave to the subreaper.
"""

import errno
import itertools
import math
import os
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelverify import ipc
from kernelverify.resources import MIB

MOST_FILES = 20_000
HELD = ("RssAnon", "RssShmem", "VmPTE")
EVERY_S = 0.1
"""Between two looks at a call that takes its time. A fast call is over before the first one."""


@dataclass(frozen=True)
class Limits:
    """What one candidate may use, all its processes together."""

    memory_bytes: int = 6 << 30
    tasks: int = 256
    disk_bytes: int = 1 << 30


def excess(pid: int, uid: int | None, workdir: Path, limits: Limits, kept: Collection[int]) -> tuple[str, str] | None:
    """Which limit is exceeded (`tasks`, `memory`, `disk`) and how, or None."""
    family = members(pid, uid, kept)
    tasks = sum(_tasks(p) for p in family)
    if tasks > limits.tasks:
        return "tasks", f"{tasks} processes and threads; at most {limits.tasks} are allowed"
    memory = _held(family)
    if memory > limits.memory_bytes:
        return "memory", f"{memory // MIB} MiB of memory; at most {limits.memory_bytes // MIB} MiB are allowed"
    found = disk(workdir, family)
    if found > limits.disk_bytes:
        told = "more or deeper files than can be looked at" if found == math.inf else f"{found // MIB} MiB of files"
        return "disk", f"{told}; at most {limits.disk_bytes // MIB} MiB are allowed"
    return None


def held(pid: int, uid: int | None, kept: Collection[int]) -> int:
    """Bytes of memory of all that a candidate started and that still runs."""
    return _held(members(pid, uid, kept))


def watched(channel: ipc.Channel, deadline: float, look: Callable[[], object]) -> dict[str, Any]:
    """The next message, with a look at the process now and then until it comes. Raises what `receive` raises."""
    while True:
        left = deadline - time.monotonic()
        try:
            return channel.receive(max(0.0, min(EVERY_S, left)))
        except ipc.TimedOut:
            if left <= 0:
                raise
            look()


def members(pid: int, uid: int | None, kept: Collection[int]) -> list[int]:
    """The candidate's processes. `kept`: children of this process that are none of the candidate's."""
    parents = dict(_parents())
    family = {pid} & parents.keys()
    family |= {p for p, parent in parents.items() if parent == os.getpid() and p not in kept}
    if uid is not None:
        family |= {p for p in parents if _uid(p) == uid}
    grown = True
    while grown:
        more = {p for p, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sorted(family - set(kept))


def users() -> set[int]:
    """User ids that something runs under."""
    return {uid for pid, _ in _parents() if (uid := _uid(pid)) is not None}


def send_all(number: signal.Signals, pid: int, uid: int | None, kept: Collection[int]) -> None:
    """A signal to each of the candidate's processes."""
    for target in members(pid, uid, kept):
        try:
            os.kill(target, number)
        except ProcessLookupError:
            continue


def end(pid: int, uid: int | None, kept: Collection[int], patience_s: float = 10.0) -> int | None:
    """Kill until nothing is left; the wait status of `pid`. Newly forked ones are found in the next round."""
    status: int | None = None
    deadline = time.monotonic() + patience_s
    while family := members(pid, uid, kept):
        send_all(signal.SIGKILL, pid, uid, kept)
        for member in family:
            found = reap(member)
            status = found if member == pid and found is not None else status
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    return status


def end_orphans(patience_s: float = 10.0) -> None:
    """Kill what the candidates of a dead referee left running: this process, a subreaper, has inherited it.

    Its own children lead a session (referees, compilers) or share this process's; a candidate's are in a session that
    is neither, and cannot leave it (seccomp). The candidate itself dies with its referee by the kernel's hand.
    """
    deadline = time.monotonic() + patience_s
    while (left := _orphans()) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            reap(pid)
        time.sleep(0.001)


def _orphans() -> list[int]:
    own = os.getsid(0)
    children = [pid for pid, parent in _parents() if parent == os.getpid()]
    return [pid for pid in children if _session(pid) not in {None, own, pid}]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def reap(pid: int) -> int | None:
    """The wait status of a child that has ended, else None."""
    found = last(pid)
    return found[0] if found else None


def last(pid: int) -> tuple[int, int] | None:
    """The wait status of a child that has ended, and the most memory that it ever held, in bytes."""
    try:
        done, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return (status, usage.ru_maxrss * 1024) if done else None


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_bytes()
                parent = int(fields[fields.rindex(b")") + 2 :].split()[1])
            except (OSError, ValueError, IndexError):  # it ended while it was read
                continue
            yield int(entry.name), parent


def _uid(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def _tasks(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - the cheapest way to count
    except OSError:
        return 0


def _held(pids: Iterable[int]) -> int:
    return sum(map(_memory, pids))


def _memory(pid: int) -> int:
    """Anonymous and shared memory of one process in bytes; files mapped from disk cost nothing.

    Page tables count: those of some terabytes that are only read fill a machine.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(HELD))
    return sum(int(value.split()[0]) * 1024 for value in fields.values())


def written(pid: int, uid: int | None, workdir: Path, kept: Collection[int]) -> float:
    """Bytes on disk of all that a candidate started and that still runs."""
    return disk(workdir, members(pid, uid, kept))


def disk(folder: Path, family: Iterable[int]) -> float:
    """Bytes of all files; infinite when they are too many, lie too deep or are locked away, where nobody else would go.

    `family`: who may hold files open that have no name any more. Step by step: os.walk recurses, and a candidate
    decides how deep.
    """
    total, looked_at, places = _nameless(folder, family), 0, [str(folder)]
    while places:
        try:
            with os.scandir(places.pop()) as entries:
                for entry in itertools.islice(entries, MOST_FILES):
                    looked_at += 1
                    size, is_folder = _size(entry)
                    total += size
                    places += [entry.path] if is_folder else []
        except OSError as error:
            if error.errno in {errno.ENAMETOOLONG, errno.EACCES}:
                return math.inf
        if looked_at >= MOST_FILES:
            return math.inf
    return total


def _nameless(folder: Path, family: Iterable[int]) -> float:
    """Bytes of removed files that are still open; infinite when there are too many descriptors to look at."""
    if not folder.exists():  # a baseline has none
        return 0
    device, seen = folder.stat().st_dev, dict[int, int]()
    opened = itertools.chain.from_iterable(map(_descriptors, family))
    for path in itertools.islice(opened, MOST_FILES):
        try:
            found = os.stat(path)  # noqa: PTH116 - thousands of times a second
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev == device:
            seen[found.st_ino] = found.st_blocks * 512
    return math.inf if next(opened, None) else sum(seen.values())


def _descriptors(pid: int) -> Iterator[str]:
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            yield entry.path
    except OSError:  # it has ended
        return


def _size(entry: os.DirEntry[str]) -> tuple[int, bool]:
    """Bytes on disk, and whether it is a folder. Raises OSError where no path is short enough to ask."""
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0, False
    return found.st_blocks * 512, stat.S_ISDIR(found.st_mode)
