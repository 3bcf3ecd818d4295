"""Whatever is killed in mid-search, the search ends right: nothing is counted twice, nothing found is lost."""

import os
import random
import re
import subprocess
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest
from following import following
from steady import ODD, script, search, twin

from cluster import system
from cluster.places import GIVEN
from kernelsearch.controller.uninstall import OPERATOR
from watching import attempts, best, complete, condition, running

pytestmark = pytest.mark.timeout(1200)
KILLS = int(os.environ.get("KERNELSEARCH_KILLS", "10"))
COMPONENTS = () if os.environ.get(GIVEN) else ("kube-apiserver",)  # those of another cluster are out of reach
VICTIMS = ("runner", "verifier", "model", "operator", "service", "configmap", *COMPONENTS)
BETWEEN_S = (3, 7)
DEADLINE_S = 60 + 8 * KILLS
"""For each kill the mean of BETWEEN_S and the second or two that it takes by itself; and a minute for the API server's
restarts and for what was killed last to come back."""
STEP = re.compile(r"attempt (?P<number>\d+) \(chain \d+\): (?P<what>asks for|dropped)")
"""What the runner's log says of an attempt."""


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
        try:
            seen.append(place.get("ksearch", "steady"))
            if complete(seen[-1]):
                return seen
            disturb()
        except (AssertionError, subprocess.TimeoutExpired):
            pass  # the API server is one of the victims: nobody is killed until it is back, and who was not is next
        time.sleep(0.5)
    raise AssertionError(place.evidence(seen[-1]))


def deadline(seen):
    """The last that was told; a complete search shows none."""
    return moment(next(each["status"]["deadlineTime"] for each in reversed(seen) if "deadlineTime" in each["status"]))


def lateness(seen):
    """Seconds from the deadline to the end as the operator wrote it."""
    return moment(seen[-1]["status"]["completionTime"]) - deadline(seen)


def check(place, seen, log):
    """What must hold of every search, disturbed or not."""
    last = seen[-1]["status"]
    assert condition(seen[-1], "Complete")["reason"] in {"DeadlineReached", "TargetReached"}
    assert last["phase"] == "Succeeded"
    check_counts(seen)
    check_best(place, seen)
    check_clock(seen, log)


def check_counts(seen):
    last = seen[-1]["status"]
    totals = [attempts(each) for each in seen]
    assert totals == sorted(totals), "a counter went back"
    counted = {k: v for k, v in last["attempts"].items() if k not in {"total", "inFlight", "infrastructure"}}
    assert sum(counted.values()) == last["attempts"]["total"]
    ids = [each["id"] for each in last["recentAttempts"]]
    assert len(ids) == len(set(ids)), "an attempt's number came twice"


def check_best(place, seen):
    first = next((n for n, each in enumerate(seen) if best(each)), len(seen))
    found = [best(each) for each in seen[first:]]
    assert found
    assert all(found), "a best kernel was lost"
    for before, after in pairwise(found):
        same = (before["attempt"], before["sha256"]) == (after["attempt"], after["sha256"])
        assert same or speedup(after) > speedup(before), "a best kernel gave way to one that is not better"
    kept = place.get("configmap", "steady-best")["data"]
    assert kept["kernel.py"] == found[-1]["source"], "the ConfigMap holds another kernel than the status"


def speedup(found):
    return float(found.get("speedup", 0))


def check_clock(seen, log):
    """By the times at which the node wrote the runners' lines down."""
    grace = seen[-1]["spec"]["budget"]["gracePeriodSeconds"]
    assert lateness(seen) <= grace + 5 + 1  # silence, rounding
    steps = [(when, match) for when, text in log.lines if (match := STEP.search(text))]
    begun = [(match["number"], when) for when, match in steps if match["what"] == "asks for"]
    assert len({number for number, _ in begun}) == len(begun) > 0, "an attempt's number was used twice"
    late = {number for number, when in begun if when > deadline(seen)}
    dropped = {match["number"] for _, match in steps if match["what"] == "dropped"}
    assert late <= dropped, "the model was asked after the deadline"


def test_kills_at_random_moments(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": DEADLINE_S, "gracePeriodSeconds": 10}))
    place.wait("steady", running, 90)
    chance = random.Random(place.name)  # the namespace's name is the seed: it stands in the failure's evidence
    victims = [*VICTIMS, *chance.choices(VICTIMS, k=max(0, KILLS - len(VICTIMS)))]
    chance.shuffle(victims)
    left, due = list(victims), time.monotonic() + 5

    def disturb():
        nonlocal due
        if left and time.monotonic() >= due:
            kill(place, left[-1])
            left.pop()
            due = time.monotonic() + chance.uniform(*BETWEEN_S)

    with following(place, "steady-runner") as log:
        seen = history(place, DEADLINE_S + 180, disturb)

    assert not left, f"the search ended before {left} were killed"
    check(place, seen, log)
    assert attempts(seen[-1]) >= 5
    print(figures(victims, seen))  # noqa: T201 - what `make chaos` is run for


def figures(victims, seen):
    tally = seen[-1]["status"]["attempts"]
    kills = ", ".join(f"{count} {victim}" for victim, count in sorted(Counter(victims).items()))
    return (
        f"\n{len(victims)} kills in {DEADLINE_S} s: {kills}\n"
        f"{tally['total']} attempts came to a verdict, {tally['correct']} correct; "
        f"{tally['infrastructure']} calls failed and were repeated\n"
        f"ended {lateness(seen):.0f} s after the deadline: {condition(seen[-1], 'Complete')['message']}"
    )


def test_two_runners_at_once_spoil_nothing_and_odd_text_survives(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": 40, "gracePeriodSeconds": 5}))
    place.wait("steady", lambda found: attempts(found) >= 2, 120)
    place.apply(twin(place.get("pod", "steady-runner")))

    with following(place, "steady-runner") as log:
        seen = history(place, 200, lambda: None)

    check(place, seen, log)
    assert ODD in seen[-1]["status"]["best"]["source"]
