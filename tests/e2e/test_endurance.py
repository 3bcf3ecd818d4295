"""Whatever is killed in mid-search, the search ends right: nothing is counted twice, nothing found is lost."""

import os
import random
import subprocess
import time
from datetime import datetime

import pytest
from steady import ODD, script, search, twin

from cluster import system
from cluster.places import GIVEN
from kernelsearch.controller.uninstall import OPERATOR
from watching import complete, condition

pytestmark = pytest.mark.timeout(1200)
KILLS = int(os.environ.get("KERNELSEARCH_KILLS", "10"))
COMPONENTS = () if os.environ.get(GIVEN) else ("kube-apiserver",)  # those of another cluster are out of reach
VICTIMS = ("runner", "verifier", "model", "operator", "service", "configmap", *COMPONENTS)


def running(found):
    return found.get("status", {}).get("phase") == "Running"


def attempts(found):
    return found.get("status", {}).get("attempts", {}).get("total", 0)


def moment(text):
    return datetime.fromisoformat(text).timestamp()


def kill(place, victim):
    """At once, without a chance to tidy up."""
    force = ("--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
    match victim:
        case "runner":
            place.kubectl("delete", "pod", "steady-runner", *force)
        case "verifier" | "model":
            place.kubectl("delete", "pod", "-l", f"app.kubernetes.io/component={victim}", *force)
        case "operator":
            namespace, _ = system.operator(place.cluster)
            place.cluster.kubectl("-n", namespace, "delete", "pod", "-l", OPERATOR, *force)
        case "service":
            place.kubectl("delete", "service", "steady-verifier", "steady-model", "--ignore-not-found")
        case "configmap":
            place.kubectl("delete", "configmap", "steady-best", "steady-checkpoint", "--ignore-not-found")
        case component:
            place.cluster.inside("kill", "-9", str(place.cluster.pid(component)))


def history(place, seconds, disturb):
    """The search's status again and again, while it is disturbed, until it is complete."""
    seen, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        disturb(seen[-1] if seen else None)
        try:
            found = place.get("ksearch", "steady")
        except (AssertionError, subprocess.TimeoutExpired):  # the API server is one of the victims
            time.sleep(0.5)
            continue
        seen.append(found)
        if complete(found):
            return seen
        time.sleep(0.5)
    raise AssertionError(place.evidence(seen[-1]))


def check(seen):
    """What must hold of every search, disturbed or not."""
    last = seen[-1]["status"]
    totals = [attempts(each) for each in seen]
    assert totals == sorted(totals), "a counter went back"
    counted = {k: v for k, v in last["attempts"].items() if k not in {"total", "inFlight", "infrastructure"}}
    assert sum(counted.values()) == last["attempts"]["total"]
    found_at = [each["status"]["best"]["attempt"] for each in seen if each.get("status", {}).get("best")]
    first = next((n for n, each in enumerate(seen) if each.get("status", {}).get("best")), len(seen))
    assert all(each.get("status", {}).get("best") for each in seen[first:]), "a best kernel was lost"
    assert found_at
    ids = [each["id"] for each in last["recentAttempts"]]
    assert len(ids) == len(set(ids)), "an attempt's number came twice"
    assert condition(seen[-1], "Complete")["reason"] in {"DeadlineReached", "TargetReached"}
    assert last["phase"] == "Succeeded"


def test_a_search_ends_with_its_deadline_and_odd_text_survives(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": 20, "gracePeriodSeconds": 10}))

    seen = history(place, 150, lambda _: None)

    check(seen)
    status = seen[-1]["status"]
    assert ODD in status["best"]["source"]
    assert place.get("configmap", "steady-best")["data"]["kernel.py"] == status["best"]["source"]
    deadline = next(each["status"]["deadlineTime"] for each in reversed(seen) if "deadlineTime" in each["status"])
    assert moment(status["completionTime"]) - moment(deadline) <= 10 + 5 + 1  # grace, silence, rounding


def test_kills_at_random_moments(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": 12 * KILLS, "gracePeriodSeconds": 10}))
    place.wait("steady", running, 90)
    chance = random.Random(place.name)  # the namespace's name is the seed: it stands in the failure's evidence
    victims = [*VICTIMS, *chance.choices(VICTIMS, k=max(0, KILLS - len(VICTIMS)))]
    chance.shuffle(victims)
    left, due = list(victims), time.monotonic() + 5

    def disturb(last):
        nonlocal due
        if left and time.monotonic() >= due and last is not None and not complete(last):
            kill(place, left.pop())
            due = time.monotonic() + chance.uniform(4, 9)

    seen = history(place, 12 * KILLS + 180, disturb)

    check(seen)
    assert not left, f"the search ended before {left} were killed"
    assert attempts(seen[-1]) >= 5


def test_two_runners_at_once_do_not_spoil_each_other(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": 60, "gracePeriodSeconds": 5}))
    place.wait("steady", lambda found: attempts(found) >= 2, 120)
    place.apply(twin(place.get("pod", "steady-runner")))

    seen = history(place, 200, lambda _: None)

    check(seen)
