"""What a hostile process may do: the sandbox of candidates and compilers, without any privilege.

`apply` locks the calling process and its children for good. It works in a pod under the `restricted` Pod Security
Standard, and as root, where the process also gets a user id of its own.

Covered: files (read-only system, the interpreter and named results; one private directory to write), /proc of other
processes, network and every socket but a connected pair, signals, ptrace and memory of other processes, scheduling
and limits of strangers, namespaces, mounts, keys, bpf, io_uring, shared memory that belongs to no process, inherited
descriptors, core dumps, privilege by exec, outliving the referee.

Not covered: bugs of the kernel and of a GPU's driver; how long and how much (CPU by rlimit, everything else by the
referee's census, see host/census.py); existence, size and owner of files (stat is not restricted); caches and
timing as side channels; the same process's own memory, which holds the candidate's inputs.

What this kernel cannot do is left out and reported, never pretended: see `active`.
"""

import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from kernelverify.sandbox import identity, kernel, landlock, seccomp

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

SYSTEM = (
    *("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/nsswitch.conf"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/vm/overcommit_memory"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
)
"""Read-only to everyone: programs and libraries, what threading runtimes ask about the machine, and one's own /proc
(`/proc/self` is resolved when the sandbox closes, so children do not see theirs)."""

GIB = 1 << 30


class SandboxError(Exception):
    """The sandbox could not be closed; the process must not go on. Never the candidate's fault."""


@dataclass(frozen=True)
class Policy:
    """What the process may still do. Paths that do not exist are passed over."""

    read_only: tuple[str, ...]
    """Files and folders to read and execute, and nothing else: name `SYSTEM` and `interpreter()` where needed."""
    read_write: tuple[str, ...] = ()
    """Private folders, made by the caller and owned by `uid` where that is given."""
    devices: tuple[str, ...] = DEVICES
    """Device files to read, write and ioctl."""
    cpu_seconds: int | None = None
    """RLIMIT_CPU of each process."""
    address_bytes: int | None = None
    """RLIMIT_AS of each process. Not for candidates: what runs on a GPU reserves huge ranges."""
    file_bytes: int = GIB // 4
    """RLIMIT_FSIZE: the largest file. Their sum is the census's business."""
    open_files: int = 512
    """RLIMIT_NOFILE."""
    uid: int | None = None
    """User id to become. Ignored, and reported as `shared`, without the right to change it."""
    tasks: int | None = None
    """RLIMIT_NPROC, set only with an own uid: otherwise it would count the user's other tasks."""
    parent: int | None = None
    """Die with this process, which must be the parent by now."""
    keep_fds: tuple[int, ...] = (0, 1, 2)
    """Descriptors to keep; all others are closed."""
    processes: bool = True
    """Whether it may fork and exec."""
    change_modes: bool = False
    """Whether it may change modes, owners and times of files it may reach by path: linkers do, candidates may not."""

    def closing(self, keep: tuple[int, ...], parent: int) -> Self:
        """The same policy for a process that knows its descriptors and its parent only at the end."""
        return replace(self, keep_fds=keep, parent=parent)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**fields)


def active() -> dict[str, str]:
    """What this machine can give: for `/v1/capabilities`, and for reports."""
    abi = landlock.abi()
    own_uid = identity.can_change()
    return {
        "landlock": f"abi {abi}" if abi else "off",
        "seccomp": "on" if seccomp.available() else "off",
        "uid": "own" if own_uid else "shared",
        "signals": "scoped" if abi >= landlock.SCOPES_SINCE or own_uid else "open",
    }


def complete(capabilities: dict[str, str]) -> bool:
    """Whether nothing essential is missing: what `requireSandbox` asks for."""
    return capabilities["landlock"] != "off" and capabilities["seccomp"] == "on" and capabilities["signals"] == "scoped"


def interpreter() -> tuple[str, ...]:
    """Folders that a running Python with its packages reads from."""
    packages = {path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}}
    return tuple(sorted({sys.prefix, sys.base_prefix, *packages}))


def apply(policy: Policy) -> dict[str, str]:
    """Lock the calling process for good and say what is active. It must have one thread.

    The order matters: what needs the right to open files comes before Landlock, what a change of user resets (death
    with the parent, dumpable) after it, and the system-call filter last, since it refuses some of the steps before.
    """
    found = active()
    try:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        _close_descriptors(policy.keep_fds)
        _leave_session()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # forked from one that is not, whose files in /proc are root's
        Path("/proc/self/oom_score_adj").write_text("1000")  # in doubt the kernel kills the candidate, not the referee
        own_uid = policy.uid is not None and identity.can_change()
        _limit(policy, own_uid=own_uid)
        needed = (*policy.read_only, *policy.read_write) if landlock.abi() else ()
        if landlock.abi():
            landlock.restrict(policy.read_only, policy.read_write, policy.devices)
        if policy.uid is not None and own_uid:
            found["uid"] = identity.become(policy.uid, needed)
        else:
            found["uid"] = "shared"
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # so that an unprivileged referee's census sees its descriptors
        _die_with(policy.parent)
        if seccomp.available():
            seccomp.restrict(processes=policy.processes, change_modes=policy.change_modes)
    except OSError as error:
        raise SandboxError(f"cannot close the sandbox: {error}") from error
    return found


def command(policy: Policy, argv: Sequence[str]) -> list[str]:
    """A command line that runs `argv` in the sandbox; exit code 126 when the sandbox or the program failed to start."""
    return [sys.executable, "-I", "-m", "kernelverify.sandbox", policy.to_json(), *argv]


def _close_descriptors(keep: Collection[int]) -> None:
    edges = [-1, *sorted(set(keep)), os.sysconf("SC_OPEN_MAX")]
    for low, high in itertools.pairwise(edges):
        if low + 1 < high:  # Python 3.11 closes *everything* for closerange(0, 0)
            os.closerange(low + 1, high)


def _leave_session() -> None:
    """An own session: no terminal to type into, and one group to stop and kill."""
    if os.getsid(0) != os.getpid():
        os.setsid()


def _limit(policy: Policy, *, own_uid: bool) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: policy.file_bytes,
        resource.RLIMIT_NOFILE: policy.open_files,
        resource.RLIMIT_CPU: policy.cpu_seconds,
        resource.RLIMIT_AS: policy.address_bytes,
        resource.RLIMIT_NPROC: policy.tasks if own_uid else None,
    }
    for which, value in limits.items():
        if value is not None:
            _, hard = resource.getrlimit(which)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)  # noqa: PLW2901
            resource.setrlimit(which, (value, value))
    os.umask(0o077)


def _die_with(parent: int | None) -> None:
    if parent is None:
        return
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be asked to take this process with it
        os._exit(1)
