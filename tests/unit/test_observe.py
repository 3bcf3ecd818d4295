"""What the operator keeps of what it watches."""

from kernelsearch.controller import observe


def _body(kind, **more):
    metadata = {"name": "x", "namespace": "n", "uid": "u", "managedFields": [{"manager": "m"}], "labels": {"a": "b"}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def test_nobody_needs_who_wrote_which_field():
    body = _body("Pod", spec={"nodeName": "here"}, status={"phase": "Running"})

    kept = observe.kept(body)

    assert kept["metadata"] == {"name": "x", "namespace": "n", "uid": "u", "labels": {"a": "b"}}
    assert (kept["spec"], kept["status"]) == (body["spec"], body["status"])
    assert "managedFields" in body["metadata"]  # kopf's own is left as it is


def test_a_checkpoint_is_not_held_in_memory():
    kept = observe.kept(_body("ConfigMap", data={"checkpoint": "x" * 1000}, binaryData={"more": "x"}))

    assert set(kept) == {"apiVersion", "kind", "metadata"}
