"""Before an installation goes, against a real API server and its controllers: nothing is stuck without the operator."""

import asyncio
import json
import time

import pytest
import yaml

from kernelsearch.controller import cluster, uninstall

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(180)]  # on a cluster with nodes, pods would run
THEIRS = "example.com/theirs"


@pytest.fixture
def search(root):
    return yaml.safe_load((root / "examples/quickstart.yaml").read_text())


def installation(release):
    """Its Deployment, whose pod nobody runs here."""
    labels = {"app.kubernetes.io/name": "kernelsearch", "app.kubernetes.io/component": "operator"}
    labels[uninstall.INSTANCE] = release
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"containers": [{"name": "operator", "image": "none"}], "securityContext": security}
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    metadata = {"name": f"{release}-operator", "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def named(search, name, *finalizers):
    return {**search, "metadata": {"name": name, "finalizers": [*finalizers, uninstall.FINALIZER]}}


def pods(namespace):
    found = json.loads(namespace.kubectl("get", "pods", "-l", uninstall.OPERATOR, "-o", "json"))["items"]
    return sorted(each["metadata"]["labels"][uninstall.INSTANCE] for each in found)


async def until(look):
    deadline = time.monotonic() + 30
    while not (found := await asyncio.to_thread(look)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    return found


@pytest.fixture
def meanwhile(server, monkeypatch):
    """Calls `act` between the list of searches and what is done with it."""

    def arrange(act):
        listing = server.list

        async def list_(kind, namespace, selector=""):
            found = await listing(kind, namespace, selector)
            if kind is cluster.KERNEL_SEARCH:
                await asyncio.to_thread(act)
            return found

        monkeypatch.setattr(server, "list", list_)

    return arrange


@pytest.mark.usefixtures("without_operator")
async def test_every_object_is_freed_while_runners_publish_and_others_delete(server, namespace, search, meanwhile):
    namespace.apply(named(search, "quiet"), named(search, "busy", THEIRS), named(search, "gone"))
    namespace.apply(installation("one"), installation("two"))
    await until(lambda: pods(namespace) == ["one", "two"])
    status = json.dumps({"status": {"attempts": {"total": 1}}})

    def act():
        namespace.kubectl("patch", "ksearch", "busy", "--subresource=status", "--type=merge", "-p", status)
        namespace.kubectl("delete", "ksearch", "gone", "--wait=false")
        namespace.kubectl("patch", "ksearch", "gone", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')

    meanwhile(act)

    freed = await uninstall.run(server, namespace.name, "one-operator", "one", (namespace.name,))

    assert freed == 2
    left = json.loads(namespace.kubectl("get", "ksearch", "-o", "json"))["items"]
    finalizers = {each["metadata"]["name"]: each["metadata"].get("finalizers", []) for each in left}
    assert finalizers == {"quiet": [], "busy": [THEIRS]}
    assert pods(namespace) == ["two"]
    namespace.kubectl("patch", "ksearch", "busy", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


@pytest.mark.usefixtures("without_operator")
async def test_it_may_be_tried_again_when_the_operator_is_gone(server, namespace, search):
    namespace.apply(named(search, "quiet"))

    first = await uninstall.run(server, namespace.name, "one-operator", "one", (namespace.name,))
    again = await uninstall.run(server, namespace.name, "one-operator", "one", (namespace.name,))

    assert (first, again) == (1, 0)
