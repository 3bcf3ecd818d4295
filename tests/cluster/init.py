"""PID 1 of the cluster: boots it, restarts what dies, reaps orphans, relays the API."""

import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import components, namespaces
from cluster.places import CONTAINERD, NODE, Plan, read

BOOT_S = 120.0
RESTART_S = 1.0
HERE = Path(__file__).parent


class Init:
    """The supervisor."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._start = plan, time.monotonic()
        self._running: dict[int, str] = {}
        self._commands: dict[str, list[str]] = {}
        self._relays: set[asyncio.Task[None]] = set()
        self.times: dict[str, float] = {}

    async def main(self) -> None:
        import socket

        await asyncio.start_server(self._relay, sock=socket.socket(fileno=self._plan.listener))
        if self._plan.life >= 0:
            asyncio.get_running_loop().add_reader(self._plan.life, lambda: os._exit(0))
        reaper = asyncio.create_task(self._reap())
        try:
            await self._boot()
            told: dict[str, Any] = {"ok": True}
        except Exception as error:  # noqa: BLE001 - whatever it was, `up` waits for the word
            told = {"ok": False, "error": repr(error)}
        written = self._plan.folder / "ready.tmp"
        written.write_text(json.dumps({**told, "seconds": self.times}))
        written.rename(self._plan.folder / "ready.json")
        await reaper

    async def _boot(self) -> None:
        plan = self._plan
        namespaces.mount()
        namespaces.network()
        self._mark("namespaces")
        self._spawn("etcd", components.etcd())
        self._spawn("kube-apiserver", components.api_server(plan))
        importing = asyncio.create_task(self._import_images()) if plan.node else None
        await self._until("api", lambda: self._api("/readyz") == b"ok")
        self._spawn("kube-controller-manager", components.controller_manager(plan))
        self._spawn("kube-scheduler", components.scheduler(plan))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        await self._until("controllers", lambda: bool(self._api(account)))
        if importing is not None:
            await asyncio.to_thread(self._kubectl, "apply", "-f", str(HERE / "manifests/coredns.yaml"))
            await importing
            await self._boot_node()

    async def _boot_node(self) -> None:
        plan = self._plan
        self._spawn("kubelet", components.kubelet(plan))
        self._spawn("kube-proxy", components.proxy(plan))
        policies = [sys.executable, "-m", "cluster.policies", "https://127.0.0.1:6443", str(plan.pki)]
        self._spawn("policies", policies)
        if plan.gpus:
            self._spawn("fakegpu", components.fake_gpus(plan))
        await self._until("node", self._node_ready)
        await self._until("dns", self._dns_ready)

    def _node_ready(self) -> bool:
        status = json.loads(self._api(f"/api/v1/nodes/{NODE}"))["status"]
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
        gpus = int(status.get("allocatable", {}).get("nvidia.com/gpu", 0))
        return ready and gpus == self._plan.gpus

    def _dns_ready(self) -> bool:
        deployment = json.loads(self._api("/apis/apps/v1/namespaces/kube-system/deployments/coredns"))
        return bool(deployment["status"].get("readyReplicas"))

    async def _import_images(self) -> None:
        self._spawn("containerd", components.containerd(self._plan))
        await self._until("containerd", lambda: Path(CONTAINERD).exists() and bool(self._ctr("version")))
        for image in self._plan.images:
            await asyncio.to_thread(self._ctr, "images", "import", image)
        self._mark("images")

    def _spawn(self, name: str, command: list[str]) -> None:
        self._commands[name] = command
        log = os.open(self._plan.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open("/dev/null", os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(HERE.parent),
        }
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsid=True)
        os.close(log)
        os.close(nothing)
        self._running[pid] = name
        (self._plan.folder / "pids.json").write_text(json.dumps({name: pid for pid, name in self._running.items()}))

    async def _reap(self) -> None:
        """Orphans and components; children of subprocess.run are its own to collect."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while True:
            with contextlib.suppress(ChildProcessError):
                while (seen := os.waitid(os.P_ALL, 0, flags)) is not None:  # noqa: ASYNC222 - WNOHANG
                    if seen.si_pid not in self._running and _is_helper(seen.si_pid):
                        break
                    os.waitpid(seen.si_pid, 0)  # noqa: ASYNC222 - it has ended
                    if name := self._running.pop(seen.si_pid, ""):
                        self._log(f"{name} ended with {seen.si_status}; again in {RESTART_S} s")
                        loop = asyncio.get_running_loop()
                        loop.call_later(RESTART_S, self._spawn, name, self._commands[name])
            await asyncio.sleep(0.05)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", 6443)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            for each in (writer, inner_writer):
                with contextlib.suppress(OSError):
                    each.close()

    async def _until(self, what: str, check: Callable[[], bool]) -> None:
        last: Exception | None = None
        while time.monotonic() - self._start < BOOT_S:
            try:
                if await asyncio.to_thread(check):
                    self._mark(what)
                    return
            except Exception as error:  # noqa: BLE001 - not yet: refused connections, missing objects, half-started servers
                last = error
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{what} is not ready after {BOOT_S} s: {last!r}")

    def _api(self, path: str) -> bytes:
        context = ssl.create_default_context(cafile=self._plan.pki / "ca.crt")
        context.load_cert_chain(self._plan.pki / "admin.crt", self._plan.pki / "admin.key")
        with urllib.request.urlopen(f"https://127.0.0.1:6443{path}", context=context, timeout=3) as answer:
            return bytes(answer.read())

    def _kubectl(self, *arguments: str) -> str:
        config = f"--kubeconfig={self._plan.pki}/admin-inside.kubeconfig"
        return namespaces.run(self._plan.programs["kubectl"], config, *arguments)

    def _ctr(self, *arguments: str) -> str:
        return namespaces.run("ctr", "-a", CONTAINERD, "-n", "k8s.io", *arguments)

    def _mark(self, what: str) -> None:
        self.times[what] = round(time.monotonic() - self._start, 1)

    def _log(self, line: str) -> None:
        with (self._plan.logs / "init.log").open("a") as log:
            log.write(f"{time.monotonic() - self._start:.1f} {line}\n")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()


def _is_helper(pid: int) -> bool:
    """Started by subprocess.run: in this process's own session, where shims and components are not."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except ProcessLookupError:
        return False


if __name__ == "__main__":
    os.environ["KUBECACHEDIR"] = "/run/kubecache"  # else that of the machine's user
    asyncio.run(Init(read(Path(sys.argv[1]))).main())
