"""What lasts when the runner does not: the checkpoint and the best kernel, in two ConfigMaps that the operator made.

Fencing: each save names its pod, and is an update of the version that was read. Whoever finds the name of a later pod
there has been replaced, and ends.
"""

import asyncio
import gzip
import json
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import CONFIG_MAP, ApiServer, ClusterError, ConflictError
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.running.own import MANAGER

KEY = "checkpoint.json.gz"
EVERY_S = 1.0
"""Between two saves: verdicts that come in meanwhile share the next one."""
WAIT_S = 0.5
OWNER = f"{names.DOMAIN}/runner-pod-uid"
SEARCH = f"{names.DOMAIN}/search-uid"


class FencedError(Exception):
    """Another pod has taken over."""


class UnreadableError(Exception):
    """What is kept is no checkpoint."""


class Checkpoints:
    """Satisfies the loop's `Store` by shape."""

    def __init__(self, server: ApiServer, namespace: str, search: str, search_uid: str, pod_uid: str) -> None:
        self._server, self._namespace, self._name = server, namespace, names.checkpoint(search)
        self._search_uid, self._pod_uid = search_uid, pod_uid
        self._seen: Manifest | None = None
        self._saved_at = float("-inf")

    async def load(self) -> Mapping[str, Any] | None:
        """The last saved state, or None, once the ConfigMap is there. Raises UnreadableError, or a ClusterError."""
        self._seen = found = await self._there()
        data = (found.get("binaryData") or {}).get(KEY)
        if not data:
            return None
        try:
            state = json.loads(gzip.decompress(b64decode(data)))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise UnreadableError(f"ConfigMap {self._name} holds no checkpoint: {error}") from error
        if not isinstance(state, dict):
            raise UnreadableError(f"ConfigMap {self._name} holds no checkpoint, but a {type(state).__name__}")
        return state

    async def save(self, state: Mapping[str, Any]) -> None:
        """Durable once this returns. Raises FencedError, or a ClusterError."""
        await asyncio.sleep(max(0.0, self._saved_at + EVERY_S - time.monotonic()))
        text = json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        data = b64encode(gzip.compress(text, mtime=0)).decode()
        while True:
            held = self._seen or await self._there()
            try:
                self._seen = await self._server.replace(self._with(held, data))
            except ConflictError as error:
                self._seen = None
                if self._saved_at == float("-inf"):
                    raise FencedError("an earlier runner saved once more while this one took over") from error
            except ClusterError as error:
                self._seen = None
                if error.status != 404:  # noqa: PLR2004 - deleted by hand: the operator makes it anew
                    raise
            else:
                self._saved_at = time.monotonic()
                return

    async def _there(self) -> Manifest:
        """The ConfigMap as it is. Raises FencedError when a later pod's name is in it."""
        while True:
            found = await self._server.get(CONFIG_MAP, self._namespace, self._name)
            if found is not None and _annotation(found, SEARCH) == self._search_uid:
                break
            await asyncio.sleep(WAIT_S)
        owner = _annotation(found, OWNER)
        if self._saved_at > float("-inf") and owner not in {"", self._pod_uid}:
            raise FencedError(f"pod {owner} has taken over {self._name}")
        return found

    def _with(self, held: Manifest, data: str) -> Manifest:
        metadata = held["metadata"]
        annotations = {**(metadata.get("annotations") or {}), OWNER: self._pod_uid}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**metadata, "annotations": annotations},
            "binaryData": {KEY: data},
        }


async def keep_best(server: ApiServer, namespace: str, search: str, files: Mapping[str, str]) -> None:
    """The best kernel and how to measure it again, for whoever has no access to anything else. Raises ClusterError."""
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.best(search), "namespace": namespace},
        "data": dict(files),
    }
    await server.apply(manifest, MANAGER)


async def best_source(server: ApiServer, namespace: str, search: str) -> str:
    """The best kernel's whole source as it was kept; empty when it is not there. Raises ClusterError."""
    found = await server.get(CONFIG_MAP, namespace, names.best(search))
    return str(((found or {}).get("data") or {}).get("kernel.py", ""))


def _annotation(manifest: Mapping[str, Any], name: str) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(name, ""))
