"""What happens before an installation goes: its operator ends, and no object keeps a finalizer of ours."""

import pytest

from kernelsearch.controller import uninstall
from kernelsearch.controller.cluster import KINDS, ConflictError
from kernelsearch.controller.uninstall import FINALIZER


def held(name, *others):
    metadata = {"name": name, "namespace": "n", "resourceVersion": "1", "finalizers": [*others, FINALIZER]}
    return {"kind": "KernelSearch", "metadata": metadata}


def operator(release):
    labels = {"app.kubernetes.io/name": "kernelsearch", "app.kubernetes.io/component": "operator"}
    return {"kind": "Pod", "metadata": {"name": release, "labels": {**labels, uninstall.INSTANCE: release}}}


class Server:
    """An API server in which others write, and delete, between what is read here and what is written."""

    def __init__(self, *searches, pods=()):
        self.searches = {each["metadata"]["name"]: each for each in searches}
        self.pods, self.scaled = list(pods), None
        self.changed, self.deleted = [], []

    async def scale(self, kind, namespace, name, replicas):
        self.scaled = (kind.name, namespace, name, replicas)
        self.pods = [each for each in self.pods if each["metadata"]["name"] != "one"]

    async def list(self, kind, _namespace, selector=""):
        if kind is KINDS["Pod"]:
            wanted = dict(each.split("=") for each in selector.split(","))
            return [each for each in self.pods if wanted.items() <= each["metadata"]["labels"].items()]
        if kind is not KINDS["KernelSearch"]:
            return []
        found = list(self.searches.values())
        for name in self.changed:
            self.searches[name] = self._next(self.searches[name])
        for name in self.deleted:
            del self.searches[name]
        return found

    async def get(self, _kind, _namespace, name):
        return self.searches.get(name)

    async def patch(self, _kind, body, patch):
        metadata = body["metadata"]
        there = self.searches.get(metadata["name"])
        if there is None:
            return None
        if there["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ConflictError("changed meanwhile")
        self.searches[metadata["name"]] = {**there, "metadata": {**metadata, **patch["metadata"]}}
        return there

    @staticmethod
    def _next(body):
        version = str(int(body["metadata"]["resourceVersion"]) + 1)
        return {**body, "metadata": {**body["metadata"], "resourceVersion": version}}

    def finalizers(self):
        return {name: each["metadata"]["finalizers"] for name, each in self.searches.items()}


async def run(server):
    return await uninstall.run(server, "system", "one-operator", "one", ())


async def test_the_operator_is_stopped_and_only_our_finalizer_goes():
    server = Server(held("a"), held("b", "example.com/theirs"), pods=[operator("one")])

    assert await run(server) == 2

    assert server.scaled == ("Deployment", "system", "one-operator", 0)
    assert server.finalizers() == {"a": [], "b": ["example.com/theirs"]}


async def test_a_search_that_publishes_meanwhile_is_freed_all_the_same():
    server = Server(held("quiet"), held("busy"))
    server.changed = ["busy"]

    assert await run(server) == 2

    assert server.finalizers() == {"quiet": [], "busy": []}


async def test_a_search_that_vanishes_meanwhile_stops_nothing():
    server = Server(held("gone"), held("other"))
    server.deleted = ["gone"]

    assert await run(server) == 1

    assert server.finalizers() == {"other": []}


async def test_a_second_release_in_the_namespace_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(uninstall, "WAIT_S", 0.2)
    server = Server(held("a"), pods=[operator("one"), operator("two")])

    await run(server)

    assert [each["metadata"]["name"] for each in server.pods] == ["two"]


async def test_an_operator_that_does_not_end_is_told(monkeypatch):
    monkeypatch.setattr(uninstall, "WAIT_S", 0.05)
    stuck = operator("one")
    stuck["metadata"]["name"] = "stuck"
    server = Server(held("a"), pods=[stuck])

    with pytest.raises(TimeoutError):
        await run(server)

    assert server.finalizers() == {"a": [FINALIZER]}
