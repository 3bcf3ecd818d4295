"""The outside of a cluster: starts it, enters it, ends it without a trace."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster import archives, cgroups, components, packages, pki, tools
from cluster.places import COREDNS, GIVEN, PAUSE, Plan, read

START_S = 180.0
END_S = 20.0
UNSHARE = (
    "unshare",
    "--mount",
    "--net",
    "--pid",
    "--ipc",
    "--uts",
    "--cgroup",
    "--fork",
    "--kill-child",
    "--mount-proc",
)


class ClusterError(Exception):
    """The cluster did not start; the message holds the last lines of its logs."""


@dataclass
class Cluster:
    """A running cluster, from outside."""

    state: Path
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What was ready when, after the start."""
    given: Path | None = None
    """The kubeconfig of a cluster that is not ours: it has an API, and no inside."""

    @property
    def kubeconfig(self) -> Path:
        return self.given or self.state / "pki/admin.kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """For kubectl, helm and our own programs; their caches go by host and port, so each cluster has its own."""
        caches = {f"HELM_{kind}_HOME": str(self.state / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.state / "kubecache"),
            **caches,
        }

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Its output; with `check=False`, that of an error too. Raises AssertionError."""
        done = subprocess.run(
            [tools.program(tools.TOOLS["kubectl"]), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    @cached_property
    def _view(self) -> dict[str, Any]:
        return json.loads(self.kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """A ServiceAccount's, by a token such as its pods have."""
        token = self.kubectl("-n", namespace, "create", "token", account, "--duration=1h").strip()
        users = [{"name": each["name"], "user": {"token": token}} for each in self._view["users"]]
        file = self.state / f"{namespace}-{account}.kubeconfig"
        file.write_text(json.dumps({**self._view, "users": users}))
        return file

    def answer_to(self, token: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> int:
        """The API server's status code for a call by who holds this token and nothing else."""
        server = self._view["clusters"][0]["cluster"]
        authority = b64decode(server["certificate-authority-data"]).decode()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        asked = urllib.request.Request(
            server["server"] + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": kind},
            method=method,
        )
        try:
            with urllib.request.urlopen(
                asked, timeout=60, context=ssl.create_default_context(cadata=authority)
            ) as said:
                return int(said.status)
        except urllib.error.HTTPError as error:
            return error.code

    def pid(self, component: str) -> int:
        """As seen by PID 1 of the cluster: to be killed from within."""
        return int(json.loads((self.state / "pids.json").read_text())[component])

    def inside(self, *command: str) -> str:
        """Run in the cluster's namespaces."""
        entry = ["nsenter", "-t", str(read(self.state).pids[-1]), "-m", "-n", "-p", "-i", "-u", "-C", "--"]
        return subprocess.run([*entry, *command], capture_output=True, text=True, check=True, timeout=120).stdout


def given(state: Path) -> Cluster | None:
    """The cluster that the environment names instead of one of our own. Raises ClusterError."""
    if not (named := os.environ.get(GIVEN)):
        return None
    config = Path(named).expanduser().resolve()
    if not config.is_file():
        raise ClusterError(f"{GIVEN} is {named!r}, which is no file; name a kubeconfig")
    return Cluster(state.resolve(), given=config)


def prepare(*, node: bool) -> dict[str, str]:
    """Everything that a cluster is made of, installed and built; the programs' paths."""
    packages.install(packages.CONTROL_PLANE)
    if node:
        packages.install(packages.NODE)
    wanted = (*tools.CONTROL_PLANE, *tools.NODE) if node else tools.CONTROL_PLANE
    return {tool.name: str(tools.build(tool)) for tool in wanted}


@contextmanager
def held(state: Path, *, node: bool, images: Sequence[Path] = (), gpus: int = 0) -> Iterator[Cluster]:
    """A cluster that ends with this block, and with this process, however that ends."""
    reading, writing = os.pipe()
    try:
        yield up(state, node=node, images=images, gpus=gpus, life=reading)
    finally:
        os.close(writing)
        os.close(reading)
        down(state)


def up(state: Path, *, node: bool, images: Sequence[Path] = (), gpus: int = 0, life: int = -1) -> Cluster:
    """Start a cluster and wait until it is ready. Raises ClusterError."""
    state = state.resolve()
    if (state / "plan.json").exists():
        raise ClusterError(f"{state} holds a cluster already; take it down first")
    plan = Plan(str(state), prepare(node=node), node=node, gpus=gpus, life=life)
    plan.logs.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plan.listener = listener.fileno()
        pki.make(plan.pki, listener.getsockname()[1])
        if node:
            components.write_files(plan)
            plan.images = [*map(str, _own_images(plan)), *map(str, images)]
        plan.cgroups = cgroups.make(f"testcluster-{os.getpid()}-{listener.getsockname()[1]}")
        _start(plan)
    return Cluster(state, _wait(plan))


def down(state: Path) -> None:
    """End it; nothing is left but its logs."""
    state = state.resolve()
    if not (state / "plan.json").exists():
        return
    plan = read(state)
    for pid in plan.pids:
        with contextlib.suppress(ProcessLookupError):
            if str(state).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    if started := _PROCESSES.pop(plan.state, None):
        started.wait(END_S)
    deadline = time.monotonic() + END_S
    for folder in plan.cgroups:
        cgroups.remove(Path(folder), deadline)
    for name in ("plan.json", "ready.json", "pids.json"):
        (state / name).unlink(missing_ok=True)
    shutil.rmtree(plan.pki, ignore_errors=True)


def _own_images(plan: Plan) -> list[Path]:
    pause, coredns = plan.folder / "pause.tar", plan.folder / "coredns.tar"
    user = {"User": "65535:65535"}
    archives.one_program(pause, PAUSE, Path(plan.programs["pause"]), user)
    archives.one_program(coredns, COREDNS, Path(plan.programs["coredns"]), {})
    return [pause, coredns]


def _start(plan: Plan) -> None:
    plan.write()
    with (plan.logs / "init.log").open("a") as log:
        process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-m", "cluster.init", plan.state],
            pass_fds=[fd for fd in (plan.listener, plan.life) if fd >= 0],
            preexec_fn=lambda: cgroups.join(plan.cgroups),  # noqa: PLW1509 - it only writes files
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text().split():
        time.sleep(0.01)
    if process.poll() is not None:
        raise ClusterError(_last_words(plan))
    plan.pids = [process.pid, int(children.read_text().split()[0])]
    plan.write()
    cgroups.take_back(process.pid)
    _PROCESSES[plan.state] = process


_PROCESSES: dict[str, subprocess.Popen[bytes]] = {}
"""Kept so that Python reaps them and does not warn."""


def _wait(plan: Plan) -> Mapping[str, float]:
    ready, deadline = plan.folder / "ready.json", time.monotonic() + START_S
    while not ready.exists():
        if _PROCESSES[plan.state].poll() is not None or time.monotonic() > deadline:
            words = _last_words(plan)
            down(plan.folder)
            raise ClusterError(words)
        time.sleep(0.05)
    told = json.loads(ready.read_text())
    if not told["ok"]:
        words = _last_words(plan)
        down(plan.folder)
        raise ClusterError(f"{told['error']}\n{words}")
    seconds: dict[str, float] = told["seconds"]
    return seconds


def _last_words(plan: Plan) -> str:
    logs = sorted(plan.logs.glob("*.log"))
    return "\n".join(f"== {log.stem}\n{log.read_text(errors='replace')[-800:]}" for log in logs)
