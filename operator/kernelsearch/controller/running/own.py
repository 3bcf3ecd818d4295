"""The runner's own search: what it asks for now, and the facts that the runner writes into its status.

Every publication holds everything that the runner owns, because what is left out of an apply is erased. It is written
onto the very object whose UID was checked and as it was last read; when somebody wrote in between, it is read again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import KERNEL_SEARCH, ApiServer, ClusterError, ConflictError
from kernelsearch.controller.manifest import Manifest, deleting, uid

MANAGER = "kernelsearch-runner"
SOON_S, LATER_S = 2.0, 10.0
"""Between two writes: when the best kernel or the end is news, and otherwise. Each travels to every watcher whole."""
TRIES = 8


class GoneError(Exception):
    """The search was deleted, or replaced by another one of its name: this process has no business any more."""


class OwnSearch:
    """Follow it with `follow`, in a task of its own."""

    def __init__(self, server: ApiServer, namespace: str, name: str, wanted_uid: str) -> None:
        self._server, self.namespace, self.name, self.uid = server, namespace, name, wanted_uid
        self.body: Manifest = {}
        self.gone = asyncio.Event()
        self._changed = asyncio.Event()
        self._written_at = float("-inf")
        self._told: Any = None

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.body["spec"]
        return spec

    @property
    def status(self) -> Mapping[str, Any]:
        return self.body.get("status") or {}

    async def read(self) -> None:
        """As it is now. Raises GoneError, or a ClusterError."""
        self._take(await self._server.get(KERNEL_SEARCH, self.namespace, self.name))

    async def follow(self) -> None:
        """Keep `body` current until the search is gone."""
        while True:
            try:
                async for body in self._server.watch(KERNEL_SEARCH, self.namespace, self.name):
                    self._take(body)
            except GoneError:
                return
            except ClusterError:
                await asyncio.sleep(1.0)

    async def until(self, holds: Callable[["OwnSearch"], bool]) -> None:
        """Wait for a change after which it holds. Raises GoneError."""
        while not holds(self):
            self._changed.clear()
            await self._changed.wait()
            if self.gone.is_set():
                raise GoneError(f"search {self.namespace}/{self.name} was deleted")

    async def publish(self, facts: Mapping[str, Any]) -> None:
        """Write the facts, if it is time for them. Raises GoneError, or a ClusterError."""
        news = (facts.get("best"), facts.get("outcome"))
        waited = time.monotonic() - self._written_at
        if waited < (SOON_S if news != self._told else LATER_S) and not facts.get("outcome"):
            return
        await self._write(_referring(facts, self.name))
        self._written_at, self._told = time.monotonic(), news

    async def _write(self, facts: Mapping[str, Any]) -> None:
        for _ in range(TRIES):
            metadata = self.body["metadata"]
            place = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
            patch = {"apiVersion": self.body["apiVersion"], "kind": "KernelSearch", "metadata": place, "status": facts}
            try:
                self._take(await self._server.apply_status(patch, MANAGER))
            except ConflictError:
                await self.read()
            else:
                return
        raise ConflictError(f"the status of {self.namespace}/{self.name} changes faster than it can be written")

    def _take(self, body: Manifest | None) -> None:
        self._changed.set()
        if body is None or uid(body) != self.uid or deleting(body):
            self.gone.set()
            raise GoneError(f"search {self.namespace}/{self.name} was deleted, or another one has its name")
        if not self.body or _version(body) >= _version(self.body):
            self.body = body


def _referring(facts: Mapping[str, Any], search: str) -> Mapping[str, Any]:
    best = facts.get("best")
    if not best:
        return facts
    return {**facts, "best": {**best, "sourceRef": {"name": names.best(search), "key": "kernel.py"}}}


def _version(body: Mapping[str, Any]) -> int:
    """Versions of one object are compared as numbers since Kubernetes 1.35 says that they may be."""
    version = str(body["metadata"]["resourceVersion"])
    return int(version) if version.isdigit() else 0
