"""Waiting that always ends."""

import asyncio

import pytest

from fakes import LoopClock, Recorder, virtually
from kernelsearch.search import patience
from kernelsearch.search.facts import Reason
from kernelsearch.search.patience import GivenUpError, InterruptedWaitError, Services
from kernelsearch.search.ports import ModelUnavailableError, Service, UnusableProblemError


class RefusedError(ModelUnavailableError):
    retry = False


async def soon(value="done", seconds=1.0):
    await asyncio.sleep(seconds)
    return value


def insisting(*results, stop_after: float = 1000.0):
    """What insisting on these results in turn gives, and the services afterwards."""
    queue = list(results)
    failures = []

    async def call():
        await asyncio.sleep(1.0)
        result = queue.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def play():
        clock = LoopClock()
        clock.now()
        services = Services(clock, Recorder(), lambda: failures.append(1))
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(stop_after, stop.set)
        given = []
        while queue:
            try:
                given.append(await services.insist(Service.MODEL, call, stop, chain=0))
            except (InterruptedWaitError, GivenUpError) as error:
                given.append(type(error))
                if stop.is_set():
                    break
        return given, services, len(failures)

    return virtually(play())


def unless_stopped_at(moment: float, seconds: float):
    async def play():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(moment, stop.set)
        return await patience.unless(stop, soon(seconds=seconds))

    return virtually(play())


def test_a_result_that_is_there_counts_even_when_time_is_over():
    assert unless_stopped_at(5.0, seconds=5.0) == "done"


def test_work_is_left_once_it_is_no_longer_wanted():
    with pytest.raises(InterruptedWaitError):
        unless_stopped_at(5.0, seconds=6.0)


def test_work_ends_with_its_result():
    assert virtually(patience.within(5.0, LoopClock(), soon())) == "done"


def test_work_that_takes_too_long_is_left():
    with pytest.raises(TimeoutError, match="no answer within 5 s"):
        virtually(patience.within(5.0, LoopClock(), soon(seconds=6.0)))


def test_errors_of_the_work_come_out_as_they_are():
    async def broken():
        raise KeyError("x")

    with pytest.raises(KeyError):
        virtually(patience.within(5.0, LoopClock(), broken()))


def test_delays_double_up_to_a_limit():
    assert [patience.delay(n) for n in (1, 2, 3, 4, 5, 6, 100)] == [1, 2, 4, 8, 16, 30, 30]


def test_failures_are_repeated_until_there_is_a_result():
    given, services, failures = insisting(ModelUnavailableError("a"), ModelUnavailableError("b"), "answer")

    assert given == ["answer"]
    assert failures == 2
    assert services.outages == {}


def test_an_outage_begins_with_the_first_failure_and_keeps_the_last_message():
    _, services, _ = insisting(*(ModelUnavailableError(str(n)) for n in range(9)), stop_after=19.0)

    assert services.outages[Service.MODEL].since == 1.0
    assert services.outages[Service.MODEL].message == "3"


def test_a_refusal_before_any_answer_cannot_be_helped():
    given, services, _ = insisting(RefusedError("a wrong key"), "never asked", stop_after=1.5)

    assert given == [InterruptedWaitError]
    assert services.refusal.reason is Reason.MODEL_UNAVAILABLE
    assert services.refusal.message == "a wrong key"


def test_a_refusal_after_an_answer_is_about_that_one_request():
    given, services, _ = insisting("answer", RefusedError("too long"), "another")

    assert given == ["answer", GivenUpError, "another"]
    assert services.refusal is None


def test_a_model_that_fails_everyone_is_asked_for_as_long_as_it_takes():
    given, *_ = insisting(*[ModelUnavailableError("down")] * 12, "answer")

    assert given == ["answer"]


def test_a_prompt_that_keeps_failing_while_others_are_served_is_given_up():
    async def play():
        services = Services(LoopClock(), Recorder(), lambda: None)
        stop = asyncio.Event()

        async def serve_others():
            while True:
                await services.insist(Service.MODEL, soon, stop, chain=1)

        async def poisonous():
            raise ModelUnavailableError("HTTP 500")

        others = asyncio.ensure_future(serve_others())
        try:
            await services.insist(Service.MODEL, poisonous, stop, chain=0)
        finally:
            others.cancel()

    with pytest.raises(GivenUpError, match=r"given up after 5 failure\(s\): HTTP 500"):
        virtually(play())


def test_a_problem_that_cannot_be_judged_is_the_users():
    _, services, _ = insisting(UnusableProblemError("line 3"), "never asked", stop_after=1.5)

    assert services.refusal.reason is Reason.PROBLEM_UNSOLVABLE
