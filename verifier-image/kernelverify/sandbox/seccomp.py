"""The system-call filter of the sandbox: what Landlock does not cover.

A *deny* list, since torch, OpenMP and GPU drivers use too much of the kernel to list what is allowed. Its edges are
closed: another architecture's calls kill the process, the x32 numbers are refused, and numbers newer than the list
was written for (`_NEWEST`) do not exist. So a kernel upgrade cannot open a hole by itself.

Refused calls return EPERM, so that a library that merely tries something goes on; `clone3`, `openat2` and unknown
numbers return ENOSYS, which makes the C library use the older calls, whose arguments a filter can see.
"""

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Sequence

from kernelverify.sandbox import kernel

NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "migrate_pages": (256, 238),
    # mounts, namespaces, file handles that go around paths
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    # large attack surface in the kernel that no kernel author needs
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "seccomp": (317, 277), "modify_ldt": (154, None), "uselib": (134, None),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42), "_sysctl": (156, None),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "create_module": (174, None), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "vhangup": (153, 58), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None),
    "ioperm": (173, None),
    # sync() makes every other process wait for the disk
    "sync": (162, 81), "syncfs": (306, 267),
    # sockets: Landlock does not stop a connect to a container engine's pathname socket (measured). sendmsg could
    # park descriptors of deleted files inside a socket, where no census finds them
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # memory that belongs to no process, so that a census of processes would miss it
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "mq_timedsend": (242, 182), "mq_timedreceive": (243, 183), "mq_notify": (244, 184),
    "mq_getsetattr": (245, 185),
    # modes, owners, times, attributes: not covered by Landlock, so a same-user candidate could change any file's
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "lchown": (94, None),
    "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    # new processes, refused only where the policy says so
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # the referee stops the process group during the baseline's turn: nobody leaves the group, and no timer wakes it
    # (a POSIX timer may send SIGCONT, which the kernel delivers to a stopped process)
    "setsid": (112, 157), "setpgid": (109, 154), "timer_create": (222, 107),
    # refused by their arguments
    "clone": (56, 220), "clone3": (435, 435), "open": (2, None), "openat": (257, 56), "openat2": (437, 437),
    "prlimit64": (302, 261), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "setpriority": (141, 140),
    "ioprio_set": (251, 30), "move_pages": (279, 239), "prctl": (157, 167), "fcntl": (72, 25),
    "socketpair": (53, 199), "ioctl": (16, 29),
}  # fmt: skip
"""System-call numbers: x86-64, aarch64 (None where that architecture never had the call)."""

MODES = frozenset(
    {"chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr"}
    | {"removexattr", "lremovexattr", "fremovexattr", "utime", "utimes", "futimesat", "utimensat"}
)
"""Refused unless the policy lets the process change modes (a linker makes its output executable)."""

PROCESSES = frozenset({"fork", "vfork", "execve", "execveat"})
"""Refused only when the policy forbids new processes."""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column in `NUMBERS`, and AUDIT_ARCH as the kernel names it."""

_NEWEST = 451
"""`cachestat`, Linux 6.5: the newest call that was looked at. fchmodat2, statmount, setxattrat and later are newer."""

_OWN_PID_FIRST = (
    "prlimit64",
    "sched_setparam",
    "sched_setscheduler",
    "sched_setattr",
    "sched_setaffinity",
    "move_pages",
)
"""Allowed with pid 0, the caller itself; on a stranger of the same user they would work (measured)."""

_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_CLONE_PARENT = 0x00008000
_CLONE_THREAD = 0x00010000
_O_TMPFILE = 0x00400000
_F_SETLEASE, _F_NOTIFY = 1024, 1026
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_PR_SCHED_CORE = 62
_X32 = 0x40000000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_SPEC_ALLOW = 4

Code = list[bytes]
"""Instructions of the kernel's classic BPF machine. A block after its call's number matched must end in a return."""


def available() -> bool:
    """Whether this kernel and this architecture can be filtered."""
    column = _ARCHITECTURES.get(platform.machine())
    if column is None:
        return False
    try:
        kernel.syscall(_seccomp_number(column[0]), _SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("I", _ERRNO))
    except OSError:
        return False
    return True


def restrict(*, processes: bool, change_modes: bool) -> None:
    """Filter this process and its children for good. Needs `no_new_privs` and a single thread."""
    code = program(platform.machine(), processes=processes, change_modes=change_modes)
    text = ctypes.create_string_buffer(b"".join(code), 8 * len(code))
    header = struct.pack("HxxxxxxP", len(code), ctypes.addressof(text))
    number = _seccomp_number(_ARCHITECTURES[platform.machine()][0])
    # Without SPEC_ALLOW, kernels before 5.16 slow a filtered process down (SSBD): the candidate, not the baseline
    kernel.syscall(number, _SECCOMP_SET_MODE_FILTER, _SPEC_ALLOW, header)


def program(machine: str, *, processes: bool, change_modes: bool) -> Code:
    """The filter for one architecture."""
    column, audit = _ARCHITECTURES[machine]
    allowed_by_policy = (PROCESSES if processes else frozenset()) | (MODES if change_modes else frozenset())
    code = _prologue(audit)
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is not None and name not in allowed_by_policy:
            block = _block(name, processes=processes)
            code += [_instruction(_JUMP_EQUAL, number, 0, len(block)), *block]
    return [*code, _return(_ALLOW)]


def _prologue(audit: int) -> Code:
    load_arch, load_number = _instruction(_LOAD, 4), _instruction(_LOAD, 0)
    foreign = [_instruction(_JUMP_EQUAL, audit, 1, 0), _return(_KILL_PROCESS)]
    x32 = [_instruction(_JUMP_AT_LEAST, _X32, 0, 1), _refuse()]
    newer = [_instruction(_JUMP_AT_LEAST, _NEWEST + 1, 0, 1), _refuse(errno.ENOSYS)]
    return [load_arch, *foreign, load_number, *x32, *newer]


def _block(name: str, *, processes: bool) -> Code:
    """What happens once a call's number matched: refused, unless its arguments are harmless."""
    if name in _OWN_PID_FIRST:
        return [*_must_equal(0, 0), _return(_ALLOW)]
    if name == "clone":
        return _clone(processes=processes)
    if name == "socketpair":
        return _socketpair()
    return _BY_ARGUMENTS.get(name, [_refuse()])


def _clone(*, processes: bool) -> Code:
    """No namespaces, no children in the referee's name; threads only where processes are refused."""
    code = _none_of_bits(0, _NAMESPACES | _CLONE_PARENT, errno.EPERM)
    if processes:
        return code
    return [*code[:-1], _instruction(_JUMP_SET, _CLONE_THREAD, 1, 0), _refuse(), _return(_ALLOW)]


def _socketpair() -> Code:
    """Only AF_UNIX, and only connected kinds: from a datagram pair, sendto() reaches any pathname socket."""
    stream, packet = socket.SOCK_STREAM, socket.SOCK_SEQPACKET
    kind = [_argument(1), _instruction(_AND, 0xF)]
    either = [_instruction(_JUMP_EQUAL, stream, 2, 0), _instruction(_JUMP_EQUAL, packet, 1, 0), _refuse()]
    return [*_must_equal(0, socket.AF_UNIX), *kind, *either, _return(_ALLOW)]


def _must_equal(index: int, value: int) -> Code:
    return [_argument(index), _instruction(_JUMP_EQUAL, value, 1, 0), _refuse()]


def _not_equal(index: int, values: Sequence[int]) -> Code:
    checks = [i for v in values for i in (_instruction(_JUMP_EQUAL, v, 0, 1), _refuse())]
    return [_argument(index), *checks, _return(_ALLOW)]


def _none_of_bits(index: int, bits: int, error: int) -> Code:
    return [_argument(index), _instruction(_JUMP_SET, bits, 0, 1), _refuse(error), _return(_ALLOW)]


def _argument(index: int) -> bytes:
    """Load an argument's low half: all that are looked at are ints to the kernel (both machines little-endian)."""
    return _instruction(_LOAD, 16 + 8 * index)


def _refuse(error: int = errno.EPERM) -> bytes:
    return _return(_ERRNO | error)


def _return(value: int) -> bytes:
    return _instruction(_RETURN, value)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _seccomp_number(column: int) -> int:
    number = NUMBERS["seccomp"][column]
    if number is None:
        raise KeyError("seccomp")
    return number


_BY_ARGUMENTS: dict[str, Code] = {
    "clone3": [_refuse(errno.ENOSYS)],
    "openat2": [_refuse(errno.ENOSYS)],
    # an unnamed file is in no folder that a census could walk
    "open": _none_of_bits(1, _O_TMPFILE, errno.EOPNOTSUPP),
    "openat": _none_of_bits(2, _O_TMPFILE, errno.EOPNOTSUPP),
    "prctl": _not_equal(0, [kernel.PR_SET_PDEATHSIG, kernel.PR_SET_DUMPABLE, _PR_SCHED_CORE]),
    # a descriptor's signal may be SIGCONT, too
    "fcntl": _not_equal(1, [_F_SETLEASE, _F_NOTIFY, _F_SETOWN, _F_SETSIG, _F_SETOWN_EX]),
    "ioctl": _not_equal(1, [_TIOCSTI, _TIOCLINUX]),
    # only PRIO_PROCESS with 0: with PRIO_USER, 0 would mean every process of the user
    "setpriority": [*_must_equal(0, 0), *_must_equal(1, 0), _return(_ALLOW)],
    # only IOPRIO_WHO_PROCESS with 0
    "ioprio_set": [*_must_equal(0, 1), *_must_equal(1, 0), _return(_ALLOW)],
}
