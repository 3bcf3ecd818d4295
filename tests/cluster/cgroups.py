"""A group of its own for each cluster, below this process's own: cgroup version 1 or 2.

Version 1 has a hierarchy for each controller, and a group may hold processes and groups at once. In version 2 there is
one hierarchy, and a group that holds processes hands no controller to the groups below it (the machine's root does). So
there the cluster's group goes to the nearest ancestor that can, its processes live in `init` below it, beside the
kubelet's `kubepods`, and `unshare`, which must be in it to make the namespaces, is put back where it came from.
"""

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
"""What the kubelet and runc refuse to do without."""
ENABLE = " ".join(f"+{each}" for each in CONTROLLERS)
SETTLE_S = 10.0


class CgroupError(Exception):
    """This machine gives no group that a node could run in; the message says how to get one."""


def unified() -> bool:
    """Whether the machine has version 2 only. Beside version 1, version 2 has no controllers and is of no use."""
    return (ROOT / "cgroup.controllers").exists()


# ---- outside ----


def make(name: str) -> list[str]:
    """One new group in each hierarchy. Raises CgroupError."""
    parents = [_giver(_own())] if unified() else list(_own_by_hierarchy())
    made = []
    for parent in parents:
        group = parent / name
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):  # in version 1 a new group may run nowhere
            if not unified() and (group / file).exists():
                (group / file).write_text((parent / file).read_text())
        made.append(str(group))
    return made


def join(groups: list[str]) -> None:
    """Put this process there."""
    for group in groups:
        Path(group, "cgroup.procs").write_text("0")


def take_back(pid: int) -> None:
    """Put a process of the cluster's group where this one is; version 1 does not need it."""
    if unified():
        (_own() / "cgroup.procs").write_text(str(pid))


def remove(group: Path, deadline: float) -> None:
    """With the groups below it, as soon as their last processes have ended, or at the deadline not at all."""
    for folder, _, _ in os.walk(group, topdown=False):
        while time.monotonic() < deadline:
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                break
            except OSError:  # its last process is still ending
                time.sleep(0.02)
            else:
                break


def _own() -> Path:
    (path,) = [line[3:] for line in _memberships() if line.startswith("0::")]
    return ROOT / path.lstrip("/")


def _own_by_hierarchy() -> Iterator[Path]:
    for line in _memberships():
        _, names, path = line.split(":", 2)
        folder = ROOT / names.replace("name=", "")
        if names and (folder / "cgroup.procs").exists():
            yield folder / path.lstrip("/")


def _memberships() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()


def _giver(own: Path) -> Path:
    """The nearest group, from `own` upwards, that hands the controllers on."""
    for group in (own, *own.parents):
        if not group.is_relative_to(ROOT):
            break
        try:
            (group / "cgroup.subtree_control").write_text(ENABLE)
        except OSError as error:  # EBUSY: it holds processes. ENOENT: it has not got these controllers itself.
            if error.errno not in (errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP):
                raise
        else:
            return group
    raise CgroupError(
        f"no group above {own} can give a new one the controllers {', '.join(CONTROLLERS)}: each holds processes or "
        "lacks them. In a container, start it with `--privileged --cgroupns=host`"
    )


# ---- inside ----


def mount(hierarchies: list[str]) -> None:
    """Fresh mounts, rooted in the cluster's group by the cgroup namespace."""
    if not hierarchies:
        _mount("cgroup2", ROOT)
        _settle()
        return
    _mount("tmpfs", ROOT, "mode=755")
    for name in hierarchies:
        (ROOT / name).mkdir()
        _mount("cgroup", ROOT / name, "none,name=systemd" if name == "systemd" else name)


def hierarchies() -> list[str]:
    """Mounted hierarchies of version 1; none on a machine with version 2 only."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup " in line]
    return [line[4].rpartition("/")[2] for line in lines if line[4].startswith(f"{ROOT}/")]


def _settle() -> None:
    """Leave the cluster's group for one below it, so that it can give its controllers to others."""
    leaf, deadline = ROOT / "init", time.monotonic() + SETTLE_S
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("0")
    while True:
        with contextlib.suppress(OSError):  # until `unshare` has been taken back
            (ROOT / "cgroup.subtree_control").write_text(ENABLE)
            return
        if time.monotonic() > deadline:
            raise CgroupError(f"the cluster's group still holds {(ROOT / 'cgroup.procs').read_text().split()}")
        time.sleep(0.02)


def _mount(kind: str, target: Path, option: str = "") -> None:
    options = ["-o", option] if option else []
    subprocess.run(["mount", "-t", kind, *options, kind, str(target)], check=True)
