"""What an object's author may add to a pod: an allow-list, because everything else could weaken the pod's isolation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import Manifest

METADATA = ("labels", "annotations")
SPEC = (
    *("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "schedulerName"),
    *("imagePullSecrets", "runtimeClassName", "volumes", "containers"),
)
CONTAINER = ("name", "resources", "env", "volumeMounts")
AMOUNTS = ("limits", "requests")
VOLUMES = ("persistentVolumeClaim", "configMap", "emptyDir")
LISTS = ("volumes", "imagePullSecrets")
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
        path = f"{field}.spec.containers[{index}]"
        yield from _unknown(_object(container), CONTAINER, path)
        yield from _resource_faults(_object(_object(container).get("resources")), f"{path}.resources")


def _resource_faults(resources: Mapping[str, Any], field: str) -> Iterator[str]:
    """GPUs have a field of their own: here they would pass by its checks, or contradict it."""
    yield from _unknown(resources, AMOUNTS, field)
    for kind in AMOUNTS:
        for name in _object(resources.get(kind)):
            if str(name).partition("/")[2].startswith(("gpu", "mig-")):
                yield f"{field}.{kind}: {name} is not asked for here; write spec.gpu"


def mounts(template: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where the template mounts what into the one container."""
    containers = map(_object, _list(_object(template.get("spec")).get("containers")))
    return [_object(mount) for container in containers for mount in _list(container.get("volumeMounts"))]


def merged(pod: Manifest, template: Mapping[str, Any]) -> Manifest:
    """`pod` (metadata and spec) with the template's parts. Each list has every name once, as server-side apply demands.

    Ours win where both say something, but for amounts of CPU and memory and for environment variables, which are the
    author's to choose.
    """
    metadata, spec = _object(template.get("metadata")), dict(_object(template.get("spec")))
    added = _list(spec.pop("containers", None))
    container = dict(pod["spec"]["containers"][0])
    for each in map(_object, added):
        container["resources"] = _resources(container.get("resources", {}), _object(each.get("resources")))
        container["env"] = _by("name", container.get("env", []), _list(each.get("env")))
        container["volumeMounts"] = _by("mountPath", _list(each.get("volumeMounts")), container.get("volumeMounts", []))
    found = {
        **{key: _by("name", _list(spec.pop(key, None)), pod["spec"].get(key, [])) for key in LISTS},
        "nodeSelector": {**_object(spec.pop("nodeSelector", None)), **pod["spec"].get("nodeSelector", {})},
    }
    return {
        "metadata": {
            **pod["metadata"],
            **{kind: {**_object(metadata.get(kind)), **pod["metadata"].get(kind, {})} for kind in METADATA},
        },
        "spec": {
            **spec,
            **pod["spec"],
            **{key: value for key, value in found.items() if value},
            "containers": [container],
        },
    }


def _resources(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Manifest:
    """Amount by amount; what has a domain, such as GPUs, stays ours.

    An amount that is given on one side only moves ours on both, so that equal ones stay equal: a request above its
    limit is refused, and a CPU that is lent can be taken back.
    """
    found: Manifest = {}
    for side, other in (AMOUNTS, AMOUNTS[::-1]):
        own = _object(ours.get(side))
        moved = {name: amount for name, amount in _object(theirs.get(other)).items() if name in own}
        devices = {name: amount for name, amount in own.items() if "/" in name}
        found[side] = {**own, **moved, **_object(theirs.get(side)), **devices}
    return {side: amounts for side, amounts in found.items() if amounts}


def _by(name: str, first: Sequence[Any], then: Sequence[Any]) -> list[Any]:
    """Both lists; of several elements of one name the last."""
    return list({_object(each).get(name, index): each for index, each in enumerate((*first, *then))}.values())


def _unknown(given: Mapping[str, Any], known: tuple[str, ...], field: str) -> Iterator[str]:
    for name in given:
        if name not in known:
            yield f"{field}.{name}: may not be set here; write only {', '.join(known)}"


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
