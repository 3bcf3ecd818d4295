"""The main job as users know it: apply, watch, read the best kernel. And `helm test`, which is one, too."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster import system
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


@pytest.fixture(scope="module")
def tried(cluster, borrows_torch):
    """What `helm test` will have said. It runs beside the other search, which saves minutes.

    Its verifier runs in the release's namespace, and needs torch there.
    """
    if cluster.given:  # and its release is not known
        yield None
        return
    if borrows_torch:
        system.lend_torch(cluster, system.NAMESPACE)
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(system.helm, cluster, "test", system.RELEASE, "-n", system.NAMESPACE, "--timeout=580s")
    # Where it failed, its search would run on beside the next tests, and hold the claim.
    cluster.kubectl("-n", system.NAMESPACE, "delete", "ksearch", "--all", "--wait=false")
    cluster.kubectl("-n", system.NAMESPACE, "delete", "pvc", system.CLAIM, "--ignore-not-found", "--wait=false")
    cluster.kubectl("delete", "pv", f"{system.CLAIM}-{system.NAMESPACE}", "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def searched(shared, quickstart, tried):  # noqa: ARG001 - `tried` has begun by then
    """What the quota counted while the search ran, and how it ended."""
    quickstart["spec"]["budget"]["targetSpeedup"] = "0.1"
    shared.apply(QUOTA, quickstart)
    shared.wait("quickstart", running)
    taken = _used(shared)
    return taken, shared.wait("quickstart", complete, 600)


@pytest.mark.needs("own_cluster")
@pytest.mark.usefixtures("searched")
def test_helm_test_runs_a_search_and_leaves_nothing_of_it(cluster, tried):
    def left():
        return cluster.kubectl("-n", system.NAMESPACE, "get", "ksearch,kmodel,kvpool", "-o", "name")

    told = tried.result()

    assert "Succeeded" in told
    until(lambda: not left(), 60)


def test_a_search_finds_a_correct_kernel_and_leaves_only_its_results(shared, searched):
    place, (taken, found) = shared, searched

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
