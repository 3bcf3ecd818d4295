"""The ways a search ends: each says why, and keeps what it found. And what is measured on the way.

All searches run side by side, as most of them wait most of the time; the tests look at what was seen.
"""

import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
import scraped
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from steady import script, search

import kernelverify.metrics
from cluster import system
from kernelsearch import metrics
from kernelsearch.controller import exposition
from kernelsearch.controller.observe import Observer
from watching import PATIENCE_S, best, complete, condition

pytestmark = pytest.mark.timeout(900)
NO_SUCH_IMAGE = "localhost/no-such-image:1"
PORTS = {"operator": 8080, "runner": 9090, "verifier": 8000}
ENOUGH_S = 60.0
"""For expressions over a window; the test says which had no data even then."""


def budget(**changes):
    return {"deadlineSeconds": 900, "gracePeriodSeconds": 10, **changes}


def searches(root):
    soon = budget(startupDeadlineSeconds=45)
    yield search(root, "attempts", budget=budget(maxAttempts=6))
    yield search(root, "tokens", budget=budget(maxTokens=8_000))
    yield search(root, "stopped")
    yield search(root, "mute", "mute.yaml", budget=budget(deadlineSeconds=20))
    yield search(root, "image", verifiers={"serve": {"device": "cpu", "image": NO_SUCH_IMAGE}}, budget=soon)
    yield search(root, "gpu", verifiers={"serve": {"device": "cuda", "gpu": {"count": 16}}}, budget=soon)


@dataclass
class Seen:
    """What came of them, by name."""

    wanted: dict[str, str]
    """Every expression of ours."""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    """What `VerifiersReady` said last before the end."""
    exposed: dict[str, str] = field(default_factory=dict)
    """`/metrics`, by component."""
    with_data: set[str] = field(default_factory=set)
    """Expressions that had data at one time or another."""

    def look(self, found):
        name = found["metadata"]["name"]
        self.found[name] = found
        if not complete(found):
            self.waiting[name] = condition(found, "VerifiersReady").get("message", "")

    def empty(self):
        return {where: each for where, each in self.wanted.items() if where not in self.with_data}

    def ended(self, name):
        """Reason, whether solved, and the status."""
        found = self.found[name]
        return condition(found, "Complete")["reason"], condition(found, "Solved")["status"], found["status"]


@pytest.fixture(scope="module")
def seen(shared, root, tmp_path_factory):
    shared.apply(script(), *searches(root))
    seen = Seen(scraped.expressions(root, shared.name, "stopped"))
    if shared.cluster.given:  # Prometheus must enter the node
        follow(shared, seen, set)
        return seen
    with scraped.scraping(shared.cluster, tmp_path_factory.mktemp("prometheus")) as prometheus:
        follow(shared, seen, lambda: prometheus.with_data(seen.empty()))
    return seen


def follow(place, seen, measure):
    """Until all are complete. One of them is stopped as soon as everything is measured that can be."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    enough = float("inf")
    while not (seen.found and all(map(complete, seen.found.values()))):
        assert time.monotonic() < deadline, place.evidence(seen.found["stopped"])
        for found in json.loads(place.kubectl("get", "ksearch", "-o", "json"))["items"]:
            seen.look(found)
        seen.with_data |= measure()
        if best(seen.found["stopped"]) and not seen.exposed:
            seen.exposed = dict(exposed(place))
            enough = time.monotonic() + ENOUGH_S
        if seen.exposed and (all(map(excused, seen.empty())) or time.monotonic() > enough):
            place.change("stopped", stop=True)
        time.sleep(1)
    seen.with_data |= measure()


def exposed(place):
    """`/metrics` of each component, through the API server."""
    for component, port in PORTS.items():
        where = system.operator(place.cluster)[0] if component == "operator" else place.name
        label = f"app.kubernetes.io/component={component}"
        names = place.cluster.kubectl("-n", where, "get", "pods", "-l", label, "-o", "name").split()
        pod = next(each for each in names if component == "operator" or "/stopped-" in each).removeprefix("pod/")
        path = f"/api/v1/namespaces/{where}/pods/{pod}:{port}/proxy/metrics"
        yield component, place.cluster.kubectl("get", "--raw", path)


@pytest.mark.parametrize(
    ("name", "reason"), [("attempts", "AttemptsExhausted"), ("tokens", "BudgetExhausted"), ("stopped", "Cancelled")]
)
def test_a_spent_budget_and_a_stop_end_it_with_their_reason(seen, name, reason):
    told, solved, status = seen.ended(name)

    assert told == reason
    assert status["attempts"]["total"] == 6 or name != "attempts"
    assert status["tokens"]["completion"] + status["tokens"]["prompt"] >= 8_000 or name != "tokens"
    if solved == "True":  # as a search that is stopped once it has found something must be
        assert "class ModelNew" in status["best"]["source"]
    assert solved == "True" or name != "stopped"


def test_a_deadline_without_a_correct_kernel_says_so_in_time(seen):
    reason, solved, status = seen.ended("mute")

    assert (reason, solved) == ("NoCorrectKernel", "False")
    assert status["phase"] == "Failed"
    assert status["attempts"]["noCode"] == status["attempts"]["total"] > 0
    ended, deadline = (datetime.fromisoformat(status[each]) for each in ("completionTime", "deadlineTime"))
    assert -1 <= (ended - deadline).total_seconds() <= 10 + 5 + 1  # grace, silence, rounding


@pytest.mark.parametrize(("name", "clue"), [("image", NO_SUCH_IMAGE), ("gpu", "Insufficient nvidia.com/gpu")])
def test_what_cannot_start_says_why(seen, name, clue):
    reason, solved, _ = seen.ended(name)

    assert (reason, solved) == ("StartupDeadlineExceeded", "False")
    assert clue in condition(seen.found[name], "Complete")["message"]
    assert clue in seen.waiting[name], "it did not say so while it waited"


@pytest.mark.parametrize("component", PORTS)
@pytest.mark.needs("own_cluster")  # elsewhere policies may keep the API server from a pod's metrics
def test_metrics_can_be_read_and_are_those_of_the_registry(seen, component):
    registry = REGISTRIES[component]()
    known = {family.name for family in registry.collect()}

    told = {family.name for family in text_string_to_metric_families(seen.exposed[component])}

    assert {name for name in told if name.startswith("kernelsearch_") and not name.endswith("_created")} == known


@pytest.mark.needs("own_cluster")  # Prometheus enters the node
def test_every_expression_is_understood_and_has_data_or_a_reason(seen):
    assert {where: seen.wanted[where] for where in seen.empty() if not excused(where)} == {}


def operators():
    registry = CollectorRegistry()
    metrics.OperatorMetrics(registry)
    registry.register(exposition.Exposition(Observer()))
    return registry


def runners():
    registry = CollectorRegistry()
    metrics.RunnerMetrics(registry)
    return registry


REGISTRIES = {"operator": operators, "runner": runners, "verifier": lambda: kernelverify.metrics.Metrics().registry}
UNTIMED = "Triton runs by interpreter on a CPU: right or wrong, but never timed, so there is no speed-up"
WHY_EMPTY = {
    "search: Best speed-up": UNTIMED,
    "solve-rate: Best speed-ups": UNTIMED,
    "solve-rate: Median best speed-up": UNTIMED,
    "alert KernelSearchTimingsDisturbed": UNTIMED,
    "alert KernelSearchNoCorrectAttempts": "wants twenty wrong attempts in a running search: minutes",
}
"""By the beginning of its name: why it cannot have data in this run."""


def excused(where):
    return any(where.startswith(name) for name in WHY_EMPTY)
