"""Trying an installation, against a real API server: this test is the operator."""

import asyncio
import json

import pytest
import yaml

from kernelsearch.controller import smoke


@pytest.fixture
def manifest(namespace, root):
    found = yaml.safe_load((root / "examples/quickstart.yaml").read_text())
    found["spec"]["managedBy"] = "example.com/this-test"
    found["metadata"] = {"name": "smoke-test", "namespace": namespace.name}
    return found


def told(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    since = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {"type": kind, "status": status, "reason": reason, "message": message, **since}


async def until(look):
    while not (found := await asyncio.to_thread(look)):  # noqa: ASYNC110 - what is waited for is elsewhere
        await asyncio.sleep(0.1)
    return found


async def publish(namespace, **status):
    """As the operator and the runner would, once the search is there."""
    patch = json.dumps({"status": status})
    await until(lambda: exists(namespace))
    namespace.kubectl("patch", "ksearch", "smoke-test", "--subresource=status", "--type=merge", "-p", patch)


def uids(namespace):
    return set(namespace.kubectl("get", "ksearch", "-o", "jsonpath={.items[*].metadata.uid}").split())


def exists(namespace):
    return bool(uids(namespace))


async def test_it_tells_how_the_search_goes_and_leaves_nothing(server, namespace, manifest):
    said = []
    running = asyncio.create_task(smoke.run(server, manifest, 30, said.append))
    await publish(namespace, phase="Running", conditions=[told("Progressing", "True", "Searching")])
    await until(lambda: len(said) == 2)
    ended = [told("Complete", "True", "TargetReached", "fast enough")]
    await publish(namespace, phase="Succeeded", conditions=ended, attempts={"total": 3, "correct": 1})

    status = await running

    assert status["attempts"]["correct"] == 1
    assert said[0] == "Pending, 0 attempts, the operator has not seen it"
    assert said[1:] == [
        "Running, 0 attempts, Searching",
        "Succeeded, 3 attempts, TargetReached: fast enough",
    ]
    assert not exists(namespace)


async def test_one_that_was_left_is_replaced(server, namespace, manifest):
    namespace.apply(manifest)
    (old,) = uids(namespace)
    running = asyncio.create_task(smoke.run(server, manifest, 30, lambda _: None))
    await until(lambda: uids(namespace) - {old})
    await publish(namespace, conditions=[told("Complete", "True", "DeadlineReached")])

    await running

    assert not exists(namespace)


async def test_one_that_is_refused_is_not_waited_for(server, namespace, manifest):
    said = []
    running = asyncio.create_task(smoke.run(server, manifest, 30, said.append))
    await publish(namespace, conditions=[told("Accepted", "False", "InvalidSpec", "no preset")])

    await running

    assert said[-1] == "Pending, 0 attempts, InvalidSpec: no preset"


async def test_one_that_does_not_end_is_given_up_and_removed(server, namespace, manifest):
    with pytest.raises(TimeoutError):
        await smoke.run(server, manifest, 2, lambda _: None)

    assert not exists(namespace)
