"""What kopf calls: events that ring the right bells, and a loop that ends when it is told to."""

import asyncio

from kernelsearch.controller import handlers
from kernelsearch.controller.observe import Name, Observer
from waiting import until

DEMO = Name("KernelSearch", "n", "demo")
BODY = {"kind": "KernelSearch", "metadata": {"namespace": "n", "name": "demo", "uid": "1"}, "spec": {}}


class Passes:
    """Remembers what it was asked for."""

    def __init__(self):
        self.run_of, self.forgotten = [], []

    async def run(self, name):
        self.run_of.append(name)
        return 60.0

    def forget(self, name):
        self.forgotten.append(name)


class Stopped:
    """kopf's flag, as far as the loop knows it."""

    def __init__(self):
        self.event, self.reason = asyncio.Event(), None

    def __bool__(self):
        return self.event.is_set()

    async def wait(self, seconds):
        await asyncio.wait_for(self.event.wait(), seconds)


INDICES = {"ours": {}, "children": {}, "referring": {}}


async def test_what_was_deleted_is_forgotten_and_what_changed_is_not():
    passes = Passes()
    made = handlers.Handlers(Observer(), passes)

    await made._changed(BODY, {"type": "MODIFIED"}, **INDICES)
    assert passes.forgotten == []
    await made._changed(BODY, {"type": "DELETED"}, **INDICES)

    assert passes.forgotten == [DEMO]


async def test_an_event_wakes_the_loop_of_its_object():
    passes, stopped = Passes(), Stopped()
    made = handlers.Handlers(Observer(), passes)
    loop = asyncio.create_task(made._loop(BODY, stopped, **INDICES))
    await until(lambda: len(passes.run_of) == 1)

    await made._changed(BODY, {"type": "MODIFIED"}, **INDICES)
    await until(lambda: len(passes.run_of) == 2)

    stopped.event.set()
    await asyncio.wait_for(loop, 10)


def test_an_event_from_beside_the_loops_is_none():
    handlers.announce(BODY, "DegradedTrue", "ReconcileFailed: it failed")
