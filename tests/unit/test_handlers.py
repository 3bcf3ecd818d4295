"""What kopf calls: events that ring the right bells, and a loop that ends when it is told to."""

import asyncio

import pytest
from kopf import DaemonStoppingReason as Reason

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

    def set(self, reason):
        self.reason = reason
        self.event.set()

    async def wait(self):
        await self.event.wait()


INDICES = {"ours": {DEMO: [BODY]}, "children": {}, "referring": {}}


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

    stopped.set(Reason.OPERATOR_EXITING)
    await asyncio.wait_for(loop, 10)


async def test_a_loop_that_ends_late_takes_nothing_from_that_of_the_next_object_of_its_name():
    passes, old, new = Passes(), Stopped(), Stopped()
    made = handlers.Handlers(Observer(), passes)
    ending = asyncio.create_task(made._loop(BODY, old, **INDICES))
    await until(lambda: len(passes.run_of) == 1)
    again = {**BODY, "metadata": {**BODY["metadata"], "uid": "2"}}
    indices = {**INDICES, "ours": {DEMO: [again]}}
    loop = asyncio.create_task(made._loop(again, new, **indices))
    await until(lambda: len(passes.run_of) == 2)

    old.set(Reason.RESOURCE_DELETED)
    await asyncio.wait_for(ending, 10)
    await made._changed(again, {"type": "MODIFIED"}, **indices)

    await until(lambda: len(passes.run_of) == 3)
    new.set(Reason.OPERATOR_EXITING)
    await asyncio.wait_for(loop, 10)


async def test_a_loop_ends_with_its_object_even_if_nobody_tells_it():
    passes = Passes()
    made = handlers.Handlers(Observer(), passes)
    loop = asyncio.create_task(made._loop(BODY, Stopped(), **INDICES))
    await until(lambda: len(passes.run_of) == 1)

    await made._changed(BODY, {"type": "DELETED"}, **{**INDICES, "ours": {}})
    await asyncio.wait_for(loop, 10)

    assert len(passes.run_of) == 1


def test_an_event_from_beside_the_loops_is_none():
    handlers.announce(BODY, "DegradedTrue", "ReconcileFailed: it failed")


class Endless(Passes):
    """A pass that waits for a server that does not answer, until it is told that it does."""

    def __init__(self):
        super().__init__()
        self.answers, self.ended = asyncio.Event(), []

    async def run(self, name):
        self.run_of.append(name)
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.ended.append("broken off")
            raise
        self.ended.append("whole")
        return 60.0


@pytest.fixture
async def in_flight():
    """Passes, the flag of the loop, and the loop in the midst of its first pass."""
    passes, stopped = Endless(), Stopped()
    loop = asyncio.create_task(handlers.Handlers(Observer(), passes)._loop(BODY, stopped, **INDICES))
    await until(lambda: passes.run_of)
    return passes, stopped, loop


@pytest.mark.parametrize("reason", [Reason.OPERATOR_EXITING, Reason.RESOURCE_DELETED])
async def test_the_end_of_the_operator_or_of_the_object_breaks_a_pass_off(in_flight, reason):
    passes, stopped, loop = in_flight

    stopped.set(reason)
    await asyncio.wait_for(loop, 10)

    assert passes.ended == ["broken off"]


async def test_what_kopf_tells_one_loop_holds_for_all_and_for_those_that_begin_later(in_flight):
    passes, stopped, told = in_flight
    made = handlers.Handlers(Observer(), passes)
    told.cancel()
    first, second = (asyncio.create_task(made._loop(BODY, flag, **INDICES)) for flag in (stopped, Stopped()))
    await until(lambda: len(passes.run_of) == 3)

    stopped.set(Reason.OPERATOR_EXITING)
    await asyncio.wait_for(asyncio.gather(first, second), 10)
    await asyncio.wait_for(made._loop(BODY, Stopped(), **INDICES), 10)

    assert len(passes.run_of) == 3
    assert passes.ended == 3 * ["broken off"]


async def test_the_pass_that_ends_a_search_is_waited_for(in_flight):
    passes, stopped, loop = in_flight

    stopped.set(Reason.FILTERS_MISMATCH)
    await asyncio.sleep(0.05)
    assert not loop.done()
    passes.answers.set()
    await asyncio.wait_for(loop, 10)

    assert passes.ended == ["whole"]


async def test_a_loop_that_is_cancelled_leaves_nothing_running(in_flight):
    passes, _, loop = in_flight

    loop.cancel()
    await asyncio.wait({loop})

    assert loop.cancelled()
    assert passes.ended == ["broken off"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
