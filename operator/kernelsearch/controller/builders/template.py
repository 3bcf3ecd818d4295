"""What an object's author may add to a pod: an allow-list, because everything else could weaken the pod's isolation."""

from collections.abc import Iterator, Mapping
from typing import Any

from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import Manifest

METADATA = ("labels", "annotations")
SPEC = (
    *("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "schedulerName"),
    *("imagePullSecrets", "runtimeClassName", "volumes", "containers"),
)
CONTAINER = ("name", "resources", "env", "volumeMounts")
VOLUMES = ("persistentVolumeClaim", "configMap", "emptyDir")
TAKEN = ("tmp", "shm", "weights", "keys")
"""Names of our own volumes."""
OURS = (names.DOMAIN, "app.kubernetes.io")


def faults(template: Mapping[str, Any], field: str) -> Iterator[str]:
    """What may not stand in a pod template, each with its path."""
    yield from _unknown(template, ("metadata", "spec"), field)
    metadata, spec = _object(template.get("metadata")), _object(template.get("spec"))
    yield from _unknown(metadata, METADATA, f"{field}.metadata")
    for kind in METADATA:
        for name in _object(metadata.get(kind)):
            if str(name).partition("/")[0] in OURS:
                yield f"{field}.metadata.{kind}: {name} belongs to the operator; leave it out"
    yield from _unknown(spec, SPEC, f"{field}.spec")
    for index, volume in enumerate(_list(spec.get("volumes"))):
        yield from _unknown(_object(volume), ("name", *VOLUMES), f"{field}.spec.volumes[{index}]")
        if _object(volume).get("name") in TAKEN:
            yield f"{field}.spec.volumes[{index}].name: {volume['name']} is the name of one of ours; take another"
    containers = _list(spec.get("containers"))
    if len(containers) > 1:
        yield f"{field}.spec.containers: holds {len(containers)}; write one, which is merged into ours"
    for index, container in enumerate(containers):
        yield from _unknown(_object(container), CONTAINER, f"{field}.spec.containers[{index}]")


def merged(pod: Manifest, template: Mapping[str, Any]) -> Manifest:
    """`pod` (metadata and spec) with the template's parts; ours win where both say something."""
    metadata, spec = _object(template.get("metadata")), dict(_object(template.get("spec")))
    added = _list(spec.pop("containers", None))
    container = dict(pod["spec"]["containers"][0])
    for each in map(_object, added):
        container["resources"] = {**container.get("resources", {}), **_object(each.get("resources"))}
        container["env"] = [*container.get("env", []), *_list(each.get("env"))]
        container["volumeMounts"] = [*container.get("volumeMounts", []), *_list(each.get("volumeMounts"))]
    lists = {key: [*pod["spec"].get(key, []), *_list(spec.pop(key, None))] for key in ("volumes", "imagePullSecrets")}
    return {
        "metadata": {
            **pod["metadata"],
            **{kind: {**_object(metadata.get(kind)), **pod["metadata"].get(kind, {})} for kind in METADATA},
        },
        "spec": {
            **spec,
            **pod["spec"],
            **{key: value for key, value in lists.items() if value},
            "containers": [container],
        },
    }


def _unknown(given: Mapping[str, Any], known: tuple[str, ...], field: str) -> Iterator[str]:
    for name in given:
        if name not in known:
            yield f"{field}.{name}: may not be set here; write only {', '.join(known)}"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
