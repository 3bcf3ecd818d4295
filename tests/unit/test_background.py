"""What goes on beside the reconcile loops: it never stops, and sees what the watches did not bring."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from kernelsearch import metrics
from kernelsearch.controller import background, handlers
from kernelsearch.controller.builders import names
from kernelsearch.controller.cluster import KINDS, ClusterError
from kernelsearch.controller.exposition import Health
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.metrics import OperatorMetrics


def search(name, version="1", *, over=False, **spec):
    metadata = {"namespace": "n", "name": name, "uid": f"uid-{name}", "resourceVersion": version}
    conditions = [{"type": "Complete", "status": "True"}] if over else []
    return {"kind": "KernelSearch", "metadata": metadata, "spec": spec, "status": {"conditions": conditions}}


def child(kind, version="1"):
    return {"kind": kind, "metadata": {"uid": f"uid-{kind}", "resourceVersion": version}}


def observer(*bodies, children=()):
    seen = Observer()
    seen.filled = True
    seen.ours = {Name("KernelSearch", "n", each["metadata"]["name"]): [each] for each in bodies}
    seen.children = {Name("KernelSearch", "n", name): [child(kind)] for name, kind in children}
    return seen


class Versions:
    """A server that knows the versions of objects of one kind."""

    def __init__(self, kind="KernelSearch", **versions):
        self.kind, self.versions_of, self.down = KINDS[kind], versions, False
        self.asked = []

    async def versions(self, kind, namespace, selector):
        self.asked.append((kind.name, namespace, selector))
        if self.down:
            raise ClusterError("gone")
        return {f"uid-{name}": version for name, version in self.versions_of.items() if kind == self.kind}


@pytest.mark.parametrize("trouble", [ClusterError("gone"), KeyError("issuer")])
async def test_a_round_that_fails_is_followed_by_the_next(trouble):
    rounds, enough = [], asyncio.Event()

    async def work():
        rounds.append(len(rounds))
        if len(rounds) == 3:
            enough.set()
        raise trouble

    task = asyncio.create_task(background.forever(0.001, work))
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()


def check(server, seen):
    health = Health()
    return background.WatchCheck(server, seen, health, OperatorMetrics(CollectorRegistry())), health


async def test_a_version_that_stays_unseen_means_a_dead_watch():
    look, health = check(Versions(a="2"), observer(search("a", "1")))

    await look.look(())
    assert not health.trouble
    await look.look(())

    assert "KernelSearch" in health.trouble


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "ConfigMap", "NetworkPolicy", "Role", "VerifierPool"])
async def test_each_kind_has_a_watch_of_its_own_that_may_die(kind):
    server = Versions(kind, **{kind: "2"})
    seen = observer(search("a"), children=[("a", kind)])
    look, health = check(server, seen)

    await look.look(())
    await look.look(())
    assert f"the watch of {kind} is dead" in health.trouble

    look, health = check(server, seen)
    seen.children = {Name("KernelSearch", "n", "a"): [child(kind, "2")]}
    await look.look(())
    await look.look(())
    assert not health.trouble


async def test_every_stream_is_asked_for_once_and_for_what_the_index_keeps_only():
    server = Versions()
    look, _ = check(server, observer())

    await look.look(("x", "y"))

    streams = {*handlers.OURS.values(), *(plural for _, plural in handlers.CHILDREN)}
    assert {KINDS[kind].plural for kind, *_ in server.asked} == streams
    assert len(server.asked) == 2 * len(streams)
    for kind, _, selector in server.asked:
        # A Pod that merely bears our managed-by label is in no index: it must not look like one that was missed.
        assert (names.OWNER_NAME in selector) == (kind not in handlers.OURS)


async def test_indices_that_are_still_filled_are_no_dead_watch_unless_it_never_ends():
    seen = observer(search("a", "1"))
    seen.filled = False
    look, health = check(Versions(a="2"), seen)

    for _ in range(background.FILLING_ROUNDS):
        await look.look(())
    assert not health.trouble

    for _ in range(2):
        await look.look(())
    assert health.trouble


def test_every_watch_has_its_series():
    assert {kind.name for kind in background.WATCHED} == set(metrics.WATCHED)


async def test_a_version_that_arrives_late_is_no_trouble_and_neither_is_an_unreachable_server():
    server, seen = Versions(a="2"), observer(search("a", "1"))
    look, health = check(server, seen)

    await look.look(())
    server.down = True
    await look.look(())
    server.down, seen.ours = False, observer(search("a", "2")).ours
    await look.look(())
    server.versions_of["a"] = "3"
    await look.look(())

    assert not health.trouble


async def test_the_sweep_looks_at_what_ended_and_still_has_something_to_do():
    swept = []

    async def reconcile(name):
        swept.append(name.name)
        return 0.0

    names = ("kept", "pods", "ttl", "degraded")
    bodies = [search("runs"), *(search(name, over=True) for name in names)]
    bodies[3]["spec"]["ttlSecondsAfterFinished"] = 5
    bodies[4]["status"]["conditions"].append({"type": "Degraded", "status": "True"})
    seen = observer(*bodies, children=[("runs", "Pod"), ("kept", "ConfigMap"), ("pods", "Pod")])

    await background.Sweeper(seen, reconcile).sweep()

    assert swept == ["pods", "ttl", "degraded"]
