"""What ModelServers and VerifierPools should look like: their users, their age, their floors, what is told of them."""

import json

import pytest

from cluster_objects import SETTINGS, at, stamp
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller import settings
from kernelsearch.controller.builders import model_server as build
from kernelsearch.controller.builders import template
from kernelsearch.controller.manifest import key
from kernelsearch.controller.plan import conditions, model_server, shared, verifier_pool

READY = {"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
WITH_WEIGHTS = {
    "r1": {"engine": "vllm", "image": "vllm", "command": ["vllm", "serve"], "args": ["/models", "--port=8000"]}
}


def body(kind="ModelServer", status=None, generation=1, **spec):
    spec = {"model": "r1", "preset": "replay", **spec} if kind == "ModelServer" else {"device": "cpu", **spec}
    metadata = {"name": "demo", "namespace": "ns", "uid": "u1", "generation": generation}
    return {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": status or {},
    }


def read(of):
    whole = json.dumps({**of, "metadata": {"name": "demo"}, "status": None})
    return (ModelServer if of["kind"] == "ModelServer" else VerifierPool).model_validate_json(whole)


def seen(of, seconds=0.0, *, users=1, pods=(READY,), children=()):
    return shared.Seen(of, {key(each): each for each in children}, pods, users, at(seconds))


def planned(of, seconds=0.0, *, with_=SETTINGS, **world):
    plan = model_server.plan if of["kind"] == "ModelServer" else verifier_pool.plan
    return plan(seen(of, seconds, **world), read(of), with_)


def deployment(plan):
    return next(each for each in plan.children if each["kind"] == "Deployment")


def container(made):
    return made["spec"]["template"]["spec"]["containers"][0]


def ready(plan):
    return conditions.find(plan.status, "Ready")


def lives(passes, **spec):
    """Replicas of each pass, by (seconds, users) or (seconds, users, generation); each sees the status of the last."""
    status, found = {}, []
    for seconds, users, *generation in passes:
        plan = planned(body(status=status, generation=(generation or [1])[0], **spec), seconds, users=users)
        status = plan.status
        found.append(deployment(plan)["spec"]["replicas"])
    return found


# ---- verifiers ----


def test_admitting_a_namespace_restarts_no_verifier():
    before, after = (planned(body("VerifierPool", allowedNamespaces=names)) for names in ([], ["team"]))

    assert deployment(before) == deployment(after)
    keys = next(each for each in after.children if each["kind"] == "ConfigMap")
    assert keys["data"]["namespaces"].split() == ["ns", "team"]


