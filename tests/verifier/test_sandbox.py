"""The sandbox's promises one by one: each is a few lines of Python that try the forbidden, in a process locked in."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernelverify import sandbox
from kernelverify.sandbox import identity

pytestmark = pytest.mark.needs("linux")
UID = 58_123


def _run(code: str, folder, **more: object) -> subprocess.CompletedProcess[str]:
    """Run code in the sandbox with `folder` as its private one."""
    own = {"uid": UID} if identity.can_change() else {}
    read = (*sandbox.SYSTEM, *sandbox.interpreter())
    policy = sandbox.Policy(read_only=read, read_write=(str(folder),), **{**own, **more})
    if own:
        os.chown(folder, UID, UID)
    command = sandbox.command(policy, [sys.executable, "-I", "-c", code])
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)


def _error(code: str, folder, **more: object) -> str:
    """The name of the exception that ends the code; empty when it got through."""
    done = _run(code, folder, **more)
    last = done.stderr.strip().splitlines()[-1:] or [""]
    return last[0].split(":", 1)[0] if done.returncode else ""


SECRET = "/etc/shadow"
CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
FAILED = "\nif r < 0: raise PermissionError(ctypes.get_errno())"
REFUSED = {
    "reads a file of the machine": f"open('{SECRET}')",
    "reads the temporary folder": "import os; os.listdir('/tmp')",
    "writes beside its folder": "open('/tmp/kernelverify-escape', 'w')",
    "writes to shared memory": "open('/dev/shm/kernelverify-escape', 'w')",
    "opens another process's memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
    "reads another process's environment": "import os; open(f'/proc/{os.getppid()}/environ', 'rb')",
    "opens a socket": "import socket; socket.socket()",
    "opens a datagram socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "opens a netlink socket": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "opens a socket of the machine": "import socket; socket.socket(socket.AF_UNIX)",
    "signals its parent": "import os; os.kill(os.getppid(), 9)",
    "renices everything": "import os; os.setpriority(os.PRIO_USER, 0, 19)",
    "limits its parent": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "moves its parent to one core": "import os; os.sched_setaffinity(os.getppid(), {0})",
    "leaves its session": "import os\nif os.fork() == 0: os._exit(0)\nos.setpgid(0, 0)",
    "changes modes": "import os; open('f', 'w'); os.chmod('f', 0o777)",
    "makes a descriptor of unnamed memory": "import os; os.memfd_create('x')",
    "traces its parent": f"{CALL}r = libc.ptrace(16, os.getppid(), 0, 0){FAILED}",
    "reads its parent's memory": f"{CALL}r = libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0){FAILED}",
    "takes a namespace": f"{CALL}r = libc.unshare(0x10000000){FAILED}",
    "mounts": f"{CALL}r = libc.mount(b'none', b'/mnt', b'tmpfs', 0, 0){FAILED}",
    "outlives its parent": f"{CALL}r = libc.prctl(1, 0, 0, 0, 0){FAILED}",
    "hides from its parent's census": f"{CALL}r = libc.prctl(4, 0, 0, 0, 0){FAILED}",
    "pushes keys into a terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
    "gains rights": "import os; os.setuid(0)",
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_may_not(what, tmp_path):
    error = _error(REFUSED[what], tmp_path)

    assert error in {"PermissionError", "FileNotFoundError", "OSError"}, error or "it got through"


@pytest.mark.needs("root")
def test_the_same_code_gets_through_outside():
    """Or the table above could refuse for the wrong reason."""
    refused = []
    for what in (
        "reads a file of the machine",
        "opens a socket",
        "reads another process's environment",
        "changes modes",
    ):
        done = subprocess.run([sys.executable, "-I", "-c", REFUSED[what]], cwd="/tmp", capture_output=True, check=False)
        refused += [what] if done.returncode else []
    Path("/tmp/f").unlink()

    assert refused == []


ALLOWED = {
    "writes in its folder": "open('x', 'w').write('y'); assert open('x').read() == 'y'",
    "reads its own /proc": "open('/proc/self/status').read()",
    "forks and waits": "import os\nif os.fork() == 0: os._exit(0)\nassert os.wait()[1] == 0",
    "starts a thread": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "speaks over a pair": "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
    "limits itself": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "runs programs": "import subprocess; subprocess.run(['true'], check=True)",
}


@pytest.mark.parametrize("what", ALLOWED)
def test_it_may(what, tmp_path):
    done = _run(ALLOWED[what], tmp_path)

    assert done.returncode == 0, done.stderr


def test_no_descriptor_comes_along(tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)  # noqa: FBT003
        code = "import os; print([int(f) for f in os.listdir('/proc/self/fd')])"
        command = sandbox.command(
            sandbox.Policy(read_only=(*sandbox.SYSTEM, *sandbox.interpreter()), read_write=(str(tmp_path),)),
            [sys.executable, "-I", "-c", code],
        )
        done = subprocess.run(command, capture_output=True, text=True, close_fds=False, check=True)

    assert set(json.loads(done.stdout)) <= {0, 1, 2, 3}  # 3: the listing's own


def test_a_file_has_its_largest_size(tmp_path):
    done = _run("with open('x', 'w') as f:\n    f.write('y' * 9000)", tmp_path, file_bytes=4096)

    assert done.returncode != 0
    assert (tmp_path / "x").stat().st_size == 4096


def test_processor_time_ends(tmp_path):
    done = _run("while True: pass", tmp_path, cpu_seconds=1)

    assert done.returncode in {-signal.SIGXCPU, -signal.SIGKILL}


def test_without_processes_it_cannot_fork():
    # only within a Python that is locked already: to exec one would need what is refused
    code = (
        "import os, sys\nfrom kernelverify import sandbox\n"
        "sandbox.apply(sandbox.Policy.from_json(sys.argv[1]))\nos.fork()"
    )
    policy = sandbox.Policy(read_only=(*sandbox.SYSTEM, *sandbox.interpreter()), processes=False)

    done = subprocess.run([sys.executable, "-c", code, policy.to_json()], capture_output=True, text=True, check=False)

    assert "PermissionError" in done.stderr or "BlockingIOError" in done.stderr, done.stderr


def test_it_dies_with_its_parent():
    code = (
        "import os, sys, time\nfrom kernelverify import sandbox\nparent = os.getpid()\npid = os.fork()\nif pid == 0:\n"
        "    sandbox.apply(sandbox.Policy(read_only=('/usr',), parent=parent))\n"
        "    os.write(1, str(os.getpid()).encode())\n    time.sleep(60)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.read1(20))
        parent.kill()

    assert _gone(child)


def test_a_program_that_is_not_there_is_exit_126():
    policy = sandbox.Policy(read_only=(*sandbox.SYSTEM, *sandbox.interpreter()))

    done = subprocess.run(sandbox.command(policy, ["/no/such"]), capture_output=True, text=True, check=False)

    assert done.returncode == 126
    assert "cannot start /no/such" in done.stderr


def test_what_is_active_is_told():
    found = sandbox.active()

    assert sandbox.complete(found) == (
        found["landlock"] != "off" and found["seccomp"] == "on" and found["signals"] == "scoped"
    )
    assert not sandbox.complete({**found, "landlock": "off"})


def _gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
