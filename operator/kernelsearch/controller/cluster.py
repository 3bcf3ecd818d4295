"""The cluster's API as the controller uses it: seven verbs on plain manifests, typed errors, timeouts always set.

Server-side apply is the only way in which children and status are written; kopf has none, and the client library's own
serialisation cannot carry an emoji (see `serialise`), so requests are made through the library's transport: its
configuration, TLS and token rotation, our bytes.

    ClusterError
    ├── ConflictError       409: somebody else wrote meanwhile, or the object exists; read again
    ├── InvalidError        400, 413 or 422: the server refuses the content; trying again does not help
    ├── TerminatingError    403 in a namespace that is being deleted: nothing can be made there any more
    ├── ForbiddenError      401 or 403: the operator's RBAC; the message names what is missing
    └── UnreachableError    429 or 5xx; trying again helps
        └── SilentError     no answer at all
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

from kernelsearch.controller import serialise
from kernelsearch.controller.manifest import Manifest

REQUEST_S = 20.0
WATCH_S = 240
"""The server ends a watch after so long, and the watcher begins anew: a stream that died silently is not for ever."""
QUIET_S = 300.0
"""Longer than a watch lasts: no byte for so long means that the connection is dead."""
GONE = 410
MERGE = "application/merge-patch+json"
PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


Body = bytes | Manifest | None
"""Of a request: our own bytes, or what the library serialises."""


class ClusterError(Exception):
    """A request to the API server failed."""

    status = 0


class NotFoundError(ClusterError):
    """It is not there, or no more."""

    status = 404


class ConflictError(ClusterError):
    """Somebody else wrote meanwhile."""

    status = 409


class InvalidError(ClusterError):
    """The server refuses what was sent."""

    status = 422


class TerminatingError(ClusterError):
    """The namespace is being deleted."""

    status = 403


class ForbiddenError(ClusterError):
    """The server refuses who sent it."""

    status = 403


class UnreachableError(ClusterError):
    """The server did not answer, or asks to come again."""

    status = 503


class SilentError(UnreachableError):
    """The server did not answer at all, or not to the end."""


@dataclass(frozen=True)
class Kind:
    """A kind of object by its place in the API."""

    name: str
    plural: str
    group: str = ""
    version: str = "v1"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(["namespaces", quote(namespace)] if namespace else []), self.plural, quote(name), sub]
        return "/".join(part for part in parts if part)


OURS = "kernelsearch.dev"
KERNEL_SEARCH = Kind("KernelSearch", "kernelsearches", OURS, "v1alpha1")
MODEL_SERVER = Kind("ModelServer", "modelservers", OURS, "v1alpha1")
VERIFIER_POOL = Kind("VerifierPool", "verifierpools", OURS, "v1alpha1")
POD, SERVICE = Kind("Pod", "pods"), Kind("Service", "services")
CONFIG_MAP, SERVICE_ACCOUNT = Kind("ConfigMap", "configmaps"), Kind("ServiceAccount", "serviceaccounts")
EVENT = Kind("Event", "events")
DEPLOYMENT = Kind("Deployment", "deployments", "apps")
NETWORK_POLICY = Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io")
ROLE = Kind("Role", "roles", "rbac.authorization.k8s.io")
ROLE_BINDING = Kind("RoleBinding", "rolebindings", "rbac.authorization.k8s.io")
KINDS = {
    kind.name: kind
    for kind in (
        *(KERNEL_SEARCH, MODEL_SERVER, VERIFIER_POOL, POD, SERVICE, CONFIG_MAP, SERVICE_ACCOUNT, EVENT),
        *(DEPLOYMENT, NETWORK_POLICY, ROLE, ROLE_BINDING),
    )
}
"""By name, as it stands in a manifest."""


class Cluster(Protocol):
    """What the controller needs of an API server. Every method may raise a ClusterError."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object, or None."""

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        """The objects that carry the labels."""

    async def versions(self, kind: Kind, namespace: str | None, selector: str = "") -> dict[str, str]:
        """Resource version by UID, from the server's cache: cheap enough to be asked every minute."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Make it. ConflictError when it is there already."""

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        """Server-side apply: what `manager` left out of a manifest that it owned is removed."""

    async def apply_status(self, manifest: Manifest, manager: str) -> Manifest:
        """The same for `status`. With `metadata.resourceVersion`, ConflictError unless it is still that one."""

    async def replace(self, manifest: Manifest) -> Manifest:
        """Update. ConflictError when `metadata.resourceVersion` is not the current one."""

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        """Delete it and what it owns, if it is there; with `uid`, only that very one (else ConflictError)."""


class ApiServer:
    """A Cluster over HTTP. Close it, or use it as a context manager through `connect`."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._ask("GET", kind.path(namespace, name))
        except NotFoundError:
            return None

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Manifest]:
        query = {"labelSelector": selector} if selector else {}
        found = await self._ask("GET", kind.path(namespace), query)
        return [{"apiVersion": kind.api_version, "kind": kind.name, **each} for each in found.get("items") or ()]

    async def versions(self, kind: Kind, namespace: str | None, selector: str = "") -> dict[str, str]:
        query = {"resourceVersion": "0", **({"labelSelector": selector} if selector else {})}
        found = await self._ask("GET", kind.path(namespace), query, headers={"Accept": PARTIAL})
        metadata = [each["metadata"] for each in found.get("items") or ()]
        return {each["uid"]: each["resourceVersion"] for each in metadata}

    async def create(self, manifest: Manifest) -> Manifest:
        kind, namespace, _ = _place(manifest)
        return await self._ask("POST", kind.path(namespace), body=serialise.yaml(manifest))

    async def apply(self, manifest: Manifest, manager: str) -> Manifest:
        return await self._apply(manifest, manager, "")

    async def apply_status(self, manifest: Manifest, manager: str) -> Manifest:
        return await self._apply(manifest, manager, "status")

    async def replace(self, manifest: Manifest) -> Manifest:
        return await self._ask(
            "PUT", KINDS[manifest["kind"]].path(*_place(manifest)[1:]), body=serialise.yaml(manifest)
        )

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> None:
        options: Manifest = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._ask("DELETE", kind.path(namespace, name), body=serialise.yaml(options))
        except NotFoundError:
            return

    async def patch(self, kind: Kind, body: Manifest, patch: Manifest) -> Manifest | None:
        """A merge patch onto the object as it was read; None when it is gone, ConflictError when it has changed."""
        metadata = {**patch.get("metadata", {}), "resourceVersion": body["metadata"]["resourceVersion"]}
        path = kind.path(body["metadata"]["namespace"], body["metadata"]["name"])
        try:
            return await self._merge(path, {**patch, "metadata": metadata})
        except NotFoundError:
            return None

    async def scale(self, kind: Kind, namespace: str, name: str, replicas: int) -> None:
        """How many pods it should have; one that is not there needs none."""
        try:
            await self._merge(kind.path(namespace, name), {"spec": {"replicas": replicas}})
        except NotFoundError:
            return

    async def _merge(self, path: str, patch: Manifest) -> Manifest:
        """The library serialises what is JSON by its type itself."""
        return await self._ask("PATCH", path, body=patch, headers={"Content-Type": MERGE})

    async def text(self, path: str) -> str:
        """Any other path, as it is."""
        return (await self._raw("GET", path, {}, None, {"Accept": "*/*"})).decode()

    async def date(self, now: Callable[[], datetime]) -> tuple[datetime, datetime, datetime] | None:
        """The server's time in whole seconds, and ours when it was asked and had answered; None where a proxy hides it.

        Every answer has it, a refusal too: it needs no right.
        """
        asked = now()
        response = await self._send("GET", "/version", {}, None, {}, aiohttp.ClientTimeout(total=REQUEST_S))
        answered = now()
        response.release()
        told = response.headers.get("Date")
        return (parsedate_to_datetime(told), asked, answered) if told else None

    async def watch(self, kind: Kind, namespace: str, name: str) -> AsyncIterator[Manifest | None]:
        """One object: as it is now, then after each change; None once it is gone. Begins anew for ever.

        Raises a ClusterError when a watch cannot be begun.
        """
        version = ""
        while True:
            if not version:
                seen = await self.get(kind, namespace, name)
                version = seen["metadata"]["resourceVersion"] if seen else "0"
                yield seen
            async for event in self._watched(kind, namespace, name, version):
                if event["type"] == "ERROR":
                    break
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield None if event["type"] == "DELETED" else event["object"]
            else:
                continue
            version = ""

    async def close(self) -> None:
        await self._client.close()

    async def _apply(self, manifest: Manifest, manager: str, sub: str) -> Manifest:
        kind, namespace, name = _place(manifest)
        query = {"fieldManager": manager, "force": "true"}
        headers = {"Content-Type": serialise.APPLY}
        body = serialise.yaml(manifest)
        return await self._ask("PATCH", kind.path(namespace, name, sub), query, body, headers)

    async def _watched(self, kind: Kind, namespace: str, name: str, version: str) -> AsyncIterator[Manifest]:
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
            "allowWatchBookmarks": "true",
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S, sock_read=QUIET_S)
        response = await self._send("GET", kind.path(namespace), query, None, {}, limits)
        try:
            if response.status == GONE:
                yield {"type": "ERROR"}
                return
            _raise_for(response.status, "" if response.status < 400 else await response.text(), kind.plural)  # noqa: PLR2004
            async for line in response.content:
                yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError):
            return
        finally:
            response.close()

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Manifest:
        found = json.loads(await self._raw(method, path, query or {}, body, headers or {}))
        return found if isinstance(found, dict) else {}

    async def _raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body,
        headers: Mapping[str, str],
    ) -> bytes:
        response = await self._send(method, path, query, body, headers, aiohttp.ClientTimeout(total=REQUEST_S))
        try:
            read = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SilentError(f"{method} {path}: the API server's answer broke off: {_words(error)}") from error
        finally:
            response.release()
        _raise_for(response.status, read.decode(errors="replace"), f"{method} {path}")
        return read

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Body,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        settings = self._client.configuration
        try:
            auth = {each["key"]: each["value"] for each in (await settings.auth_settings()).values()}
            url = f"{settings.host}{path}" + (f"?{urlencode(query)}" if query else "")
            sent = {"Accept": "application/json", "Content-Type": "application/yaml", **auth, **headers}
            wrapped = await self._client.rest_client.request(
                method, url, headers=sent, body=body or b"", _request_timeout=limits
            )
        except (aiohttp.ClientError, OSError, ApiException, TimeoutError) as error:
            raise SilentError(f"{method} {path}: the API server does not answer: {_words(error)}") from error
        response: aiohttp.ClientResponse = wrapped.response
        return response


@asynccontextmanager
async def connect() -> AsyncIterator[ApiServer]:
    """The pod's own cluster, else the kubeconfig's. Raises ClusterError when there is neither."""
    settings = Configuration()
    try:
        config.load_incluster_config(settings)
    except config.ConfigException:
        try:
            await config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                f"no cluster: this is no pod with a ServiceAccount token, and there is no kubeconfig: {error}"
            ) from error
    server = ApiServer(ApiClient(settings))
    try:
        yield server
    finally:
        await server.close()
        await asyncio.sleep(0)  # aiohttp closes its transports in the next turn of the loop


def _place(manifest: Mapping[str, Any]) -> tuple[Kind, str | None, str]:
    metadata = manifest["metadata"]
    return KINDS[manifest["kind"]], metadata.get("namespace"), metadata["name"]


def _raise_for(status: int, text: str, what: str) -> None:
    if status < 400:  # noqa: PLR2004 - success
        return
    try:
        message = json.loads(text).get("message", text)
    except (ValueError, AttributeError):
        message = text
    if status == ForbiddenError.status and "it is being terminated" in str(message):
        raise TerminatingError(f"{what}: {message}")
    errors: dict[int, type[ClusterError]] = {
        404: NotFoundError,
        409: ConflictError,
        401: ForbiddenError,
        403: ForbiddenError,
        400: InvalidError,
        413: InvalidError,
        422: InvalidError,
    }
    raise errors.get(status, UnreachableError)(f"{what}: {status}: {str(message)[:1000]}")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
