"""The main job as users know it: apply, watch, read the best kernel."""

import time

import pytest

from watching import complete, condition, running, until

pytestmark = pytest.mark.timeout(900)
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "team"},
    "spec": {"hard": {"pods": "10", "requests.cpu": "4", "requests.memory": "16Gi", "configmaps": "20"}},
}
"""Generous: it is there to count, and to refuse every pod that does not say what it needs."""
NOTHING = {"pods": "0", "requests.cpu": "0", "requests.memory": "0"}


def test_a_search_finds_a_correct_kernel_and_leaves_only_its_results(place, quickstart):
    quickstart["spec"]["budget"]["targetSpeedup"] = "0.1"

    place.apply(QUOTA, quickstart)
    place.wait("quickstart", running)
    taken = _used(place)
    found = place.wait("quickstart", complete, 600)

    assert taken["pods"] == "3", taken  # model, verifier, runner
    assert not set(taken.values()) & {"0"}, taken
    assert condition(found, "Complete")["reason"] == "TargetReached"
    assert condition(found, "Solved")["status"] == "True"
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert "class ModelNew" in status["best"]["source"]
    assert status["attempts"]["correct"] >= 1
    assert status["tokens"]["completion"] > 0
    kept = place.get("configmap", "quickstart-best")["data"]
    assert kept["kernel.py"] == status["best"]["source"]
    assert "class Model" in kept["reference.py"]
    header, row = place.kubectl("get", "ksearch", "quickstart").splitlines()
    assert header.split() == ["NAME", "PHASE", "SPEEDUP", "SOLVED", "ATTEMPTS", "DEADLINE", "MODEL", "AGE"]
    assert row.split()[1] == "Succeeded"
    _gone(place, "pods", "modelservers", "verifierpools", "deployments", "roles", "networkpolicies")
    assert sorted(place.names("configmaps")) == [
        "configmap/kube-root-ca.crt",
        "configmap/quickstart-best",
        "configmap/quickstart-checkpoint",
    ]
    until(lambda: _used(place) == NOTHING, 60)
    assert "finalizers" not in found["metadata"] or not place.get("ksearch", "quickstart")["metadata"].get("finalizers")


def _used(place):
    """What the quota counts against the namespace's pods."""
    used = place.get("resourcequota", "team")["status"]["used"]
    return {name: used[name] for name in NOTHING}


def _gone(place, *kinds):
    deadline = time.monotonic() + 60
    while left := [name for kind in kinds for name in place.names(kind)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
