"""What is known of the cluster: what is kept of it, and which searches use a ModelServer or a VerifierPool."""

import pytest

from cluster_objects import search, shared
from kernelsearch.controller import observe
from kernelsearch.controller.observe import Observer

ACCEPTED = {"conditions": [{"type": "Accepted", "status": "True"}]}
BY_KIND = [("ModelServer", "model", "serverRef"), ("VerifierPool", "verifiers", "poolRef")]


def using(part, field, namespace="models", status=ACCEPTED, **more):
    """A search of namespace `ns` that names the one called `r1`."""
    ref = {"name": "r1", "namespace": namespace}
    return search(status, **{part: {field: ref}}, **more)


def users(of, *searches):
    observer = Observer()
    for each in searches:
        for name in filter(None, observe.uses(each)):
            observer.referring.setdefault(name, []).append(each)
    return [name.name for name in observer.users(of)]


@pytest.mark.parametrize(("kind", "part", "field"), BY_KIND)
def test_a_search_that_is_not_admitted_is_no_user(kind, part, field):
    mine = using(part, field)

    assert users(shared(kind, name="r1", namespace="models"), mine) == []
    assert users(shared(kind, name="r1", namespace="models", allowedNamespaces=["other"]), mine) == []
    assert users(shared(kind, name="r1", namespace="models", allowedNamespaces=["ns"]), mine) == ["demo"]


@pytest.mark.parametrize("namespace", ["", "ns"])
@pytest.mark.parametrize(("kind", "part", "field"), BY_KIND)
def test_its_own_namespace_needs_no_admission(kind, part, field, namespace):
    assert users(shared(kind, name="r1", owner="x"), using(part, field, namespace)) == ["demo"]


@pytest.mark.parametrize(("owner", "found"), [("u1", ["demo"]), ("somebody", [])])
@pytest.mark.parametrize("kind", ["ModelServer", "VerifierPool"])
def test_a_search_that_names_none_uses_its_own_and_no_namesake(kind, owner, found):
    assert users(shared(kind, owner=owner), search(ACCEPTED)) == found


@pytest.mark.parametrize(
    "idle",
    [
        {"status": None},
        {"status": {"conditions": [*ACCEPTED["conditions"], {"type": "Complete", "status": "True"}]}},
        {"suspend": True},
    ],
)
def test_a_search_that_does_not_run_is_no_user(idle):
    server = shared("ModelServer", name="r1", namespace="models", allowedNamespaces=["ns"])

    assert users(server, using("model", "serverRef", **idle)) == []


def body(kind, **more):
    metadata = {"name": "x", "namespace": "n", "uid": "u", "managedFields": [{"manager": "m"}], "labels": {"a": "b"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def test_nobody_needs_who_wrote_which_field():
    pod = body("Pod", spec={"nodeName": "here"}, status={"phase": "Running"})

    kept = observe.kept(pod)

    assert kept["metadata"] == {"name": "x", "namespace": "n", "uid": "u", "labels": {"a": "b"}}
    assert (kept["spec"], kept["status"]) == (pod["spec"], pod["status"])
    assert "managedFields" in pod["metadata"]  # kopf's own is left as it is


def test_a_checkpoint_is_not_held_in_memory():
    kept = observe.kept(body("ConfigMap", data={"checkpoint": "x" * 1000}, binaryData={"more": "x"}))

    assert set(kept) == {"apiVersion", "kind", "metadata"}
