"""A user id of its own for the sandboxed process, where the verifier runs as root."""

import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from kernelverify.sandbox import kernel

_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2
_CAP_SETGID, _CAP_SETUID = 6, 7


def can_change() -> bool:
    """Whether this process may become another user."""
    if os.geteuid() != 0:
        return False
    needed = 1 << _CAP_SETGID | 1 << _CAP_SETUID
    return _effective() & needed == needed


def become(uid: int, needed: Iterable[str]) -> str:
    """Switch user and group for good, with no supplementary groups and no capabilities; says how.

    On a developer's machine the interpreter may lie in a home folder that only its owner may enter (/root is 0700).
    Then the process keeps the one capability to read what Landlock lets it open; `needed` are those paths.
    """
    keep = not all(_reachable(uid, path) for path in needed)
    if keep:
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if not keep:
        return "own"
    _keep_only(1 << _CAP_DAC_READ_SEARCH)
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH)  # for a compiler after exec
    return "own, reads closed folders"


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _reachable(uid: int, path: str) -> bool:
    """Whether a user without rights of its own can walk to the path and read it."""
    try:
        real = Path(path).resolve(strict=True)
    except OSError:
        return True  # what does not exist is not needed
    return all(_open_to(uid, folder, stat.S_IXUSR) for folder in real.parents) and _open_to(uid, real, stat.S_IRUSR)


def _open_to(uid: int, path: Path, right: int) -> bool:
    found = path.stat()
    return bool(found.st_mode & (right if found.st_uid == uid else right >> 6))


def _keep_only(capabilities: int) -> None:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    low = struct.pack("III", capabilities, capabilities, capabilities)
    kernel.syscall(_CAPSET[os.uname().machine], header, low + struct.pack("III", 0, 0, 0))
