"""Objects of the cluster as plain data, and the few ways to look at one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

HASH = "kernelsearch.dev/hash"
"""Annotation: digest of the manifest as it was last applied. The server fills in so much that nothing else compares."""


@dataclass(frozen=True, order=True)
class Key:
    """Which object, among all of one namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def key(manifest: Mapping[str, Any]) -> Key:
    return Key(manifest["kind"], manifest["metadata"]["name"])


def digest(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sealed(manifest: Manifest) -> Manifest:
    """With its digest as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), HASH: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def same(wanted: Mapping[str, Any], observed: Mapping[str, Any]) -> bool:
    """The observed object was last applied from the wanted (sealed) manifest."""
    seen = observed["metadata"].get("annotations") or {}
    return bool(seen.get(HASH) == wanted["metadata"]["annotations"][HASH])


def uid(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"].get("uid", ""))


def owned_by(manifest: Mapping[str, Any], owner_uid: str) -> bool:
    return any(each.get("uid") == owner_uid for each in manifest["metadata"].get("ownerReferences") or ())


def deleting(manifest: Mapping[str, Any]) -> bool:
    return bool(manifest["metadata"].get("deletionTimestamp"))
