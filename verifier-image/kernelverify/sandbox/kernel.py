"""The few system calls that Python does not wrap, by ctypes. Numbers that differ by architecture stand in `seccomp`."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A raw system call; OSError with its errno when it fails."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise _error(f"system call {number}")
    return result


def prctl(option: int, value: int, third: int = 0) -> None:
    words = [ctypes.c_ulong(v) for v in (value, third, 0, 0)]
    if _libc.prctl(ctypes.c_int(option), *words) < 0:
        raise _error(f"prctl {option}")


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{os.strerror(code)} ({what})")
