"""One pass over one object: what it writes, what it counts, what it says of its own failures, what it forgets."""

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import cluster_objects
from cluster_objects import SETTINGS, at, shared
from kernelsearch.controller import manifest, reconcile
from kernelsearch.controller.cluster import (
    ConflictError,
    ForbiddenError,
    SilentError,
    TerminatingError,
    UnreachableError,
)
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.controller.plan import conditions, standing
from kernelsearch.controller.plan.shared import LOOK_AGAIN_SECONDS
from kernelsearch.metrics import OperatorMetrics
from waiting import until

DEMO = Name("KernelSearch", "ns", "demo")
IN_A_CONFIG_MAP = {"configMapRef": {"name": "c", "key": "k"}}
"""A problem that makes every pass before acceptance ask the API server."""


@dataclass
class Memory:
    """A Cluster that keeps what is written, as a server would. `fails` maps a verb to what it raises."""

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    fails: dict[str, Exception] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def put(self, body):
        """As somebody else would write it."""
        number = max([int(each["metadata"]["resourceVersion"]) for each in self.objects.values()], default=6) + 1
        place = {"uid": f"{body['kind']}-1", **body["metadata"], "resourceVersion": str(number)}
        self.objects[body["kind"], place["name"]] = kept = {**body, "metadata": place}
        return copy.deepcopy(kept)

    def _does(self, verb, kind):
        self.done.append(f"{verb} {kind}")
        if verb in self.fails:
            raise self.fails[verb]

    async def get(self, kind, _namespace, name):
        self._does("get", kind.name)
        return copy.deepcopy(self.objects.get((kind.name, name)))

    async def create(self, body):
        self._does("create", body["kind"])
        return self.put(body)

    async def apply(self, body, _manager):
        self._does("apply", body["kind"])
        return self.put(body)

    async def apply_status(self, body, _manager):
        self._does("status", body["kind"])
        there = self.objects[body["kind"], body["metadata"]["name"]]
        if there["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ConflictError("it was changed meanwhile")
        others = {name: value for name, value in (there.get("status") or {}).items() if name not in standing.OWNED}
        return self.put({**there, "status": {**others, **copy.deepcopy(body["status"])}})

    async def delete(self, kind, _namespace, name, uid=""):
        self._does("delete", kind.name)
        assert self.objects[kind.name, name]["metadata"]["uid"] == uid
        del self.objects[kind.name, name]

    def count(self, verb):
        return sum(each.startswith(verb) for each in self.done)


class World:
    """A reconciler, its cluster, and indices that follow the cluster when `sync` says so."""

    def __init__(self, body, settings=SETTINGS):
        self.cluster, self.observer, self.events, self.now = Memory(), Observer(), [], 0.0
        self.registry = CollectorRegistry()
        self.reconciler = reconcile.Reconciler(
            self.cluster,
            settings,
            self.observer,
            OperatorMetrics(self.registry),
            {"issuer": "i", "jwks": "{}"},
            clock=lambda: at(self.now),
            announce=lambda _, *event: self.events.append(event),
        )
        self.cluster.put(body)
        self.sync()

    def sync(self):
        """The watches bring everything."""
        bodies = [copy.deepcopy(each) for each in self.cluster.objects.values()]
        self.observer.ours = {Name(each["kind"], "ns", each["metadata"]["name"]): [each] for each in bodies}
        self.observer.children = {DEMO: [each for each in bodies if each["kind"] != "KernelSearch"]}

    async def passes(self, count=1, **fails):
        """Each after the watches have brought what the one before wrote. `fails`: what each verb raises meanwhile."""
        self.cluster.fails = fails
        waits = []
        for _ in range(count):
            self.sync()
            waits.append(await self.reconciler.run(DEMO))
        self.cluster.fails = {}
        return waits

    def runner_says(self, **facts):
        body = self.cluster.objects["KernelSearch", "demo"]
        self.cluster.put({**body, "status": {**body["status"], **facts}})

    @property
    def status(self):
        return self.cluster.objects["KernelSearch", "demo"].get("status") or {}

    def degraded(self):
        found = conditions.find(self.status, "Degraded")
        return found.get("status"), found.get("reason"), found.get("message", "")

    def remembered(self):
        """How much the reconciler keeps between passes."""
        mine, children = self.reconciler, self.reconciler._applier._written
        return len(mine._failures) + len(mine._stale) + sum(1 + len(each) for each in children.values())

    def counted(self, name, **labels):
        return self.registry.get_sample_value(f"kernelsearch_{name}", labels)

    def reconciled(self, result):
        return self.counted("reconciles_total", kind="KernelSearch", result=result)


@pytest.fixture
def world():
    return World(cluster_objects.search())


@pytest.fixture
def asking():
    """Of a search whose passes read a ConfigMap before they can plan anything."""
    made = World(cluster_objects.search(problem=IN_A_CONFIG_MAP))
    made.cluster.put({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "class Model: ..."}})
    return made


async def test_a_pass_writes_status_and_children_and_the_next_has_nothing_to_do(world):
    await world.passes(2)
    assert world.status["phase"] == "Starting"
    assert ("Pod", "demo-runner") in world.cluster.objects

    world.cluster.done.clear()
    (wait,) = await world.passes()

    assert world.cluster.done == []
    assert 0 < wait <= LOOK_AGAIN_SECONDS
    assert world.reconciled("ok") == 3
    assert world.counted("reconcile_duration_seconds_count", kind="KernelSearch") == 3


async def test_after_a_conflict_the_object_is_read_anew(world):
    world.cluster.put(world.cluster.objects["KernelSearch", "demo"])  # the index does not know yet

    waits = [await world.reconciler.run(DEMO) for _ in range(2)]

    assert waits[0] == reconcile.AGAIN_S
    assert world.cluster.done[1] == "get KernelSearch"
    assert (world.reconciled("conflict"), world.reconciled("ok")) == (1, 1)
    assert world.status["phase"] == "Starting"


async def test_in_a_namespace_that_ends_nothing_has_failed(world, caplog):
    assert await world.passes(apply=TerminatingError("it is being terminated")) == [LOOK_AGAIN_SECONDS]

    assert world.reconciled("error") == 0
    assert caplog.records == []


async def test_an_object_that_is_gone_or_ends_is_left_alone(world):
    ending = world.cluster.objects["KernelSearch", "demo"]
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert await world.passes() == [LOOK_AGAIN_SECONDS]
    del world.cluster.objects["KernelSearch", "demo"]
    assert await world.passes() == [LOOK_AGAIN_SECONDS]

    assert world.cluster.done == []


async def test_an_object_that_is_gone_leaves_nothing_behind(world):
    await world.passes(2, create=UnreachableError("503"))
    assert world.remembered()
    del world.cluster.objects["KernelSearch", "demo"]

    await world.passes()

    assert not world.remembered()


@pytest.mark.parametrize("error", [ConflictError("409"), UnreachableError("503")])
async def test_an_object_that_goes_while_its_pass_fails_leaves_nothing_behind(world, error):
    def goes(*_):
        world.observer.ours = {}
        raise error

    world.cluster.put = goes

    await world.reconciler.run(DEMO)

    assert not world.remembered()


async def test_a_child_that_is_gone_is_remembered_no_longer(world):
    await world.passes(2)
    before = world.remembered()
    del world.cluster.objects["ConfigMap", "demo-best"]

    await world.passes(2)

    assert world.remembered() == before


async def test_failures_are_counted_logged_and_tried_again_later_and_later(world, caplog):
    waits = await world.passes(7, create=UnreachableError("503"))

    assert waits == [*reconcile.BACKOFF_S, reconcile.BACKOFF_S[-1], reconcile.BACKOFF_S[-1]]
    assert world.reconciled("error") == 7
    assert "KernelSearch ns/demo: a pass failed" in caplog.text


async def test_a_good_pass_starts_the_backoff_anew(world):
    await world.passes(3, create=UnreachableError("503"))
    await world.passes()

    assert await world.passes(apply=UnreachableError("503")) == [LOOK_AGAIN_SECONDS]  # there is nothing to apply
    del world.cluster.objects["ConfigMap", "demo-best"]
    assert await world.passes(apply=UnreachableError("503")) == [reconcile.BACKOFF_S[0]]


@pytest.mark.parametrize("error", [ForbiddenError("may not get configmaps"), KeyError("may not get configmaps")])
async def test_a_pass_that_fails_before_it_has_a_plan_says_so(asking, error):
    await asking.passes(2, get=error)

    assert asking.degraded()[:2] == ("True", "ReconcileFailed")
    assert type(error).__name__ in asking.degraded()[2]
    assert "may not get configmaps" in asking.degraded()[2]
    assert asking.events == [("DegradedTrue", f"ReconcileFailed: {asking.degraded()[2]}")]


async def test_it_touches_no_other_condition_and_no_clock(world):
    await world.passes()
    before, world.now = world.status, 100.0
    world.reconciler.settings = None  # as a defect in planning would

    await world.passes()

    assert world.degraded()[0] == "True"
    assert {**world.status, "conditions": 0} == {**before, "conditions": 0}
    assert world.status["conditions"][:-1] == before["conditions"][:-1]


async def test_a_failure_that_stands_there_is_not_written_again_for_other_figures(asking):
    for port in range(41000, 41005):
        await asking.passes(get=UnreachableError(f"read tcp 10.0.0.1:{port}: reset, request 3f2a-{port}"))
    assert asking.cluster.count("status") == 1

    await asking.passes(get=UnreachableError("no route"))

    assert asking.cluster.count("status") == 2
    assert "no route" in asking.degraded()[2]


async def test_a_pass_that_failed_after_its_plan_says_so_once_and_does_not_flap(world):
    await world.passes(3, create=ForbiddenError("exceeded quota"))
    assert "exceeded quota" in world.degraded()[2]

    world.cluster.done.clear()
    await world.passes(5, create=ForbiddenError("exceeded quota"))

    assert world.degraded()[0] == "True"
    assert world.cluster.done == 5 * ["create Pod"]


async def test_the_next_good_pass_clears_it(asking):
    await asking.passes(2, get=ForbiddenError("no"))

    await asking.passes()

    assert asking.degraded() == ("False", "AsExpected", "")
    assert conditions.holds(asking.status, "Accepted")


async def test_a_failure_that_another_process_told_is_cleared_too(asking):
    await asking.passes(get=ForbiddenError("no"))
    later = World(asking.cluster.objects["KernelSearch", "demo"])
    later.cluster.put(asking.cluster.objects["ConfigMap", "c"])

    await later.passes()

    assert later.degraded()[0] == "False"


async def test_an_ended_search_is_freed_of_its_failure_as_well(world):
    await world.passes()
    world.runner_says(outcome={"reason": "NoCorrectKernel", "message": "none"})
    await world.passes(2, delete=ForbiddenError("no"))
    assert conditions.holds(world.status, "Complete")
    assert world.degraded()[0] == "True"

    await world.passes()

    assert world.degraded()[0] == "False"
    assert conditions.holds(world.status, "Complete")


@pytest.mark.parametrize("error", [UnreachableError("503"), ForbiddenError("no"), ValueError("a defect")])
async def test_where_nothing_can_be_written_the_log_alone_has_it(asking, caplog, error):
    waits = await asking.passes(2, get=ForbiddenError("may not get"), status=error)

    assert waits == list(reconcile.BACKOFF_S[:2])
    assert asking.status == {}
    assert "may not get" in caplog.text
    assert "cannot be told on the object" in caplog.text


async def test_a_failure_told_onto_an_object_that_has_changed_is_told_by_the_next_pass(asking):
    asking.cluster.put(asking.cluster.objects["KernelSearch", "demo"])  # the index does not know yet
    asking.cluster.fails = {"get": ForbiddenError("no")}
    await asking.reconciler.run(DEMO)
    assert asking.status == {}

    await asking.passes(2, get=ForbiddenError("no"))

    assert asking.degraded()[0] == "True"


async def test_events_are_told_of_what_changed_and_of_nothing_else(world):
    await world.passes()
    told = [reason for reason, _ in world.events]
    assert told == ["AcceptedTrue", "ModelReadyFalse", "VerifiersReadyFalse", "RunnerReadyFalse", "ProgressingTrue"]

    await world.passes()
    world.events.clear()
    await world.passes(2)
    assert world.events == []

    world.cluster.put(shared("ModelServer"))
    world.cluster.objects["ModelServer", "demo"]["metadata"]["annotations"] = {manifest.HASH: "another"}
    await world.passes()

    assert [reason for reason, _ in world.events] == ["ModelReadyTrue"]


@pytest.mark.parametrize(
    ("facts", "solved"),
    [({}, "false"), ({"best": {"attempt": 2}}, "true"), ({"attempts": {"correct": 1}}, "true")],
)
async def test_a_finished_search_is_counted_once_as_its_conditions_say(world, facts, solved):
    await world.passes()
    world.runner_says(outcome={"reason": "DeadlineReached", "message": ""}, firstCorrectSeconds=3, **facts)

    await world.passes(3)

    assert world.counted("searches_finished_total", reason="DeadlineReached", solved=solved) == 1
    assert world.counted("time_to_first_correct_seconds_sum") == 3


class Gate:
    """A place at which passes wait until it is open."""

    def __init__(self):
        self.waiting, self.open = [], asyncio.Event()

    async def __call__(self, name):
        self.waiting.append(name)
        await self.open.wait()


async def test_no_more_passes_run_at_once_than_the_api_server_bears(world, monkeypatch):
    gate, most = Gate(), reconcile.SIDE_BY_SIDE
    monkeypatch.setattr(world.reconciler, "_body", gate)
    passes = [asyncio.create_task(world.reconciler.run(DEMO)) for _ in range(most + 3)]
    await until(lambda: len(gate.waiting) == most)

    passes[0].cancel()  # as at the operator's end: whoever waits gets its turn

    await until(lambda: len(gate.waiting) == most + 1)
    gate.open.set()
    await asyncio.wait(passes)
    assert len(gate.waiting) == most + 3


async def test_those_that_fail_slowly_do_not_hold_up_the_others(world, monkeypatch):
    await world.passes(create=UnreachableError("503"))
    gate = Gate()
    monkeypatch.setattr(world.reconciler, "_body", gate)

    failing = [asyncio.create_task(world.reconciler.run(DEMO)) for _ in range(reconcile.SIDE_BY_SIDE)]
    await until(lambda: len(gate.waiting) == reconcile.FAILED_SIDE_BY_SIDE)
    other = asyncio.create_task(world.reconciler.run(Name("KernelSearch", "ns", "other")))

    await until(lambda: len(gate.waiting) == reconcile.FAILED_SIDE_BY_SIDE + 1)
    gate.open.set()
    await asyncio.wait([*failing, other])


async def test_a_server_that_does_not_answer_is_not_asked_to_note_it(world):
    await world.passes(create=SilentError("the API server does not answer"))

    assert world.degraded()[:2] != ("True", "ReconcileFailed")
    assert world.reconciled("error") == 1
