"""Landlock: which files a process and its children may open, and that they reach nobody outside. Linux 5.13 and later.

An *allow* list: what no rule names cannot be opened, executed, created, renamed or removed. The rights that this
kernel's Landlock does not know yet (`abi`) are simply not restricted, which is why `sandbox.active` reports the number:

    abi 1  files      2  renames between folders      3  truncation      4  TCP
    abi 5  device ioctl      6  abstract sockets and signals

Not covered by any abi so far, and therefore left to `seccomp`: chmod, chown, times, extended attributes, connecting
to a *pathname* socket, stat, chdir.
"""

import os
import stat
import struct
from collections.abc import Sequence

from kernelverify.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_ALL_OF_ABI_1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET_TCP = 1 | 2  # bind, connect
_SCOPES = 1 | 2  # abstract unix sockets, signals

TCP_SINCE, SCOPES_SINCE = 4, 6
"""The versions that restrict TCP, and signals and abstract sockets."""

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def abi() -> int:
    """The version this kernel offers; 0 when it offers none."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def restrict(read_only: Sequence[str], read_write: Sequence[str], devices: Sequence[str]) -> None:
    """Lock this process. Paths that do not exist are passed over; needs `no_new_privs`."""
    version = abi()
    handled = _handled(version)
    ruleset = _ruleset(version, handled)
    try:
        for paths, access in (
            (read_only, _READ),
            (read_write, handled & ~_IOCTL_DEV),
            (devices, _READ_FILE | _WRITE_FILE | _IOCTL_DEV),
        ):
            for path in paths:
                _allow(ruleset, path, access & handled)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    rights = _ALL_OF_ABI_1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if version >= since else 0
    return rights


def _ruleset(version: int, handled: int) -> int:
    attributes = struct.pack("QQQ", handled, _NET_TCP, _SCOPES)
    size = 8 if version < TCP_SINCE else 16 if version < SCOPES_SINCE else 24
    return kernel.syscall(_CREATE_RULESET, attributes, size, 0)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _ON_FILES
        kernel.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", access, fd), 0)
    finally:
        os.close(fd)
