"""A release beside a search that runs: upgraded, removed, installed again. What runs goes on."""

import json
import time

import pytest
from steady import script, search

from cluster import system
from kernelsearch.controller.uninstall import FINALIZER, OPERATOR
from watching import attempts, condition, running, until

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(900)]  # a given one is not ours to upgrade
KINDS = ("ksearch", "kmodel", "kvpool")
REMOVED_S = 100
"""An operator may take 22 s to end on a busy machine, and helm waits for the hook's pod before and for what it deletes
after: 60 was tight. One that does not end by itself takes its 75 s of grace, and these waits besides."""
ANOTHER = {"env": [{"name": "USER", "value": "kernelsearch"}, {"name": "ANOTHER", "value": "value"}]}


@pytest.fixture
def place(shared, root):
    """Where a search runs, under the release as it was first installed, which it is again afterwards."""
    shared.apply(script(), search(root))
    shared.wait("steady", lambda found: running(found) and attempts(found))
    yield shared
    system.install(shared.cluster)


def identities(pods):
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in pods}


def operators(cluster):
    found = cluster.kubectl("-n", system.NAMESPACE, "get", "pods", "-l", OPERATOR, "-o", "json")
    return identities(json.loads(found)["items"])


def pending(place):
    return condition(place.get("kmodel", "steady"), "UpdatePending").get("status") == "True"


def finalizers(place):
    """Of all our objects in the place, by kind and name."""
    found = json.loads(place.kubectl("get", ",".join(KINDS), "-o", "json"))["items"]
    return {(each["kind"], each["metadata"]["name"]): each["metadata"].get("finalizers", []) for each in found}


def goes_on(place, after):
    return place.wait("steady", lambda found: running(found) and attempts(found) > attempts(after))


def test_an_upgrade_replaces_the_operator_and_no_pod_of_a_search(place):
    before, used, operator = place.get("ksearch", "steady"), identities(place.pods()), operators(place.cluster)
    assert len(used) == 3

    system.install(place.cluster, model=ANOTHER)
    until(lambda: pending(place))

    assert len(operators(place.cluster)) == 1
    assert operators(place.cluster).keys() != operator.keys()
    later = goes_on(place, before)
    assert identities(place.pods()) == used
    assert later["status"]["deadlineTime"] == before["status"]["deadlineTime"]

    system.install(place.cluster)
    until(lambda: not pending(place))

    assert identities(place.pods()) == used


def test_removed_in_mid_search_it_leaves_nothing_stuck_and_another_installation_goes_on(place, root):
    place.apply(search(root, "idle", suspend=True))
    place.wait("idle", lambda found: condition(found, "Suspended").get("status") == "True")
    until(lambda: all(FINALIZER in each for each in finalizers(place).values()), 60)
    before, used, served = place.get("ksearch", "steady"), identities(place.pods()), finalizers(place)

    start = time.monotonic()
    system.uninstall(place.cluster)
    took = time.monotonic() - start

    assert took < REMOVED_S, "the operator had to be killed, or our hook waited in vain"
    assert finalizers(place) == {each: [] for each in served}, "objects stay, and nothing holds them"
    assert operators(place.cluster) == {}
    alone = goes_on(place, before)  # the definitions are there, too
    place.kubectl("delete", "ksearch", "idle", "--timeout=30s")
    place.change("steady", budget={"maxAttempts": 100_000})

    system.install(place.cluster)
    place.wait("steady", lambda found: found["status"]["observedGeneration"] == found["metadata"]["generation"])

    goes_on(place, alone)
    assert identities(place.pods()) == used
    until(lambda: all(FINALIZER in each for each in finalizers(place).values()), 60)
