"""The model server fails in every way that it can; the client survives it or says why not, in bounded time."""

import asyncio
import time

import pytest

from kernelsearch.clients import errors
from kernelsearch.clients.model import Patience
from kernelsearch.replay.script import Pace
from kernelsearch.search.ports import Finish, InfrastructureError, ModelUnavailableError
from replayed import BRIEF, CONTENT, THOUGHT, UNHURRIED, asked, faulty, small, soon
from waiting import until


@pytest.mark.parametrize(
    "fault",
    [
        "rate_limit:requests=1,retry_after=0.1",
        "rate_limit:requests=1+2+3,retry_after=0",
        "server_error:requests=1+2",
        "drop:requests=1,after=5",
        "drop:requests=1,after=0",
        "stall:requests=1,after=5",
        "hang:requests=1",
    ],
)
async def test_a_passing_fault_costs_time_and_nothing_else(fault: str):
    async with asked(**faulty(fault)) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.content == CONTENT
    assert answer.reasoning == THOUGHT
    assert answer.finish is Finish.STOP


async def test_what_a_server_refused_costs_no_token():
    async with asked(**faulty("server_error:requests=1", "drop:requests=2,after=0")) as client:
        answer = await client.propose("Write a kernel", soon())

    assert not answer.tokens.estimated


async def test_tokens_of_broken_streams_are_paid_for_and_told_while_they_come():
    told: list[int] = []
    async with asked() as client:
        whole = await client.propose("Write a kernel", soon())
    async with asked(**faulty("drop:requests=1+2+3,after=10")) as client:
        answer = await client.propose("Write a kernel", soon(), told.append)

    assert answer.tokens.estimated
    assert answer.tokens.completion >= whole.tokens.completion + 30
    assert answer.tokens.prompt > whole.tokens.prompt
    assert told == sorted(told)
    assert told[-1] > 30


@pytest.mark.parametrize("fault", ["rate_limit:retry_after=0", "server_error", "drop:after=3", "stall:after=3", "hang"])
async def test_a_lasting_fault_ends_as_unavailable_before_the_deadline(fault: str):
    start = time.monotonic()
    async with asked(**faulty(fault), patience=BRIEF) as client:
        with pytest.raises(ModelUnavailableError):
            await client.propose("Write a kernel", soon(60))

    assert time.monotonic() - start < 40


@pytest.mark.parametrize("faults", [["server_error"], ["server_error:requests=1", "hang"]], ids=["between", "within"])
async def test_the_deadline_ends_the_retries(faults: list[str]):
    """Between two tries or in one of them: the trouble is told, not an answer without a token."""
    start = time.monotonic()
    async with asked(**faulty(*faults), patience=Patience(backoff=errors.Backoff(0.05, 0.1))) as client:
        with pytest.raises(ModelUnavailableError, match="HTTP 500"):
            await client.propose("Write a kernel", soon(4))

    assert time.monotonic() - start < 40


async def test_retry_after_is_honoured():
    start = time.monotonic()
    async with asked(**faulty("rate_limit:requests=1,retry_after=0.6")) as client:
        await client.propose("Write a kernel", soon())

    assert time.monotonic() - start >= 0.6


async def test_an_endless_thought_is_cut_at_the_deadline_and_counted():
    async with asked(**faulty("endless"), patience=UNHURRIED) as client:
        answer = await client.propose("Write a kernel", soon(4))

    assert answer.finish is Finish.CUT
    assert answer.content == ""
    assert "reconsider the tile size" in answer.reasoning
    assert answer.tokens.estimated
    assert answer.tokens.reasoning == answer.tokens.completion > 10


async def test_a_hang_until_the_deadline_is_cut_with_nothing():
    async with asked(**faulty("hang"), patience=Patience(first_token_s=60)) as client:
        answer = await client.propose("Write a kernel", soon(0.3))

    assert answer.finish is Finish.CUT
    assert answer.content == answer.reasoning == ""
    assert answer.tokens.completion == 0


async def test_a_truncated_answer_is_length_not_a_fault():
    async with asked(**faulty("truncate:after=8")) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.finish is Finish.LENGTH
    assert answer.tokens.completion == 8


async def test_a_slow_first_token_within_patience_is_no_fault():
    async with asked(**faulty("slow_start:seconds=0.3")) as client:
        start = time.monotonic()
        answer = await client.propose("Write a kernel", soon())

    assert answer.content == CONTENT
    assert time.monotonic() - start >= 0.3


async def test_a_slow_first_token_beyond_patience_is_asked_again():
    async with asked(**faulty("slow_start:seconds=30,requests=1")) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.content == CONTENT


async def test_chains_that_are_refused_together_all_come_through():
    async with asked(**faulty("rate_limit:every=2,retry_after=0.05,times=10")) as client:
        answers = await asyncio.gather(*(client.propose(f"chain {n}", soon()) for n in range(16)))

    assert [answer.content for answer in answers] == [CONTENT] * 16


async def test_a_wrong_key_is_refused_at_once():
    async with asked(server_key="right", api_key=lambda: "wrong") as client:
        with pytest.raises(errors.ModelRefusedError, match="KERNELSEARCH_SECRET"):
            await client.propose("Write a kernel", soon())


async def test_the_right_key_is_taken():
    async with asked(server_key="right", api_key=lambda: "right") as client:
        assert (await client.propose("Write a kernel", soon())).content == CONTENT


@pytest.mark.parametrize("fault", ["rate_limit:retry_after=0", "server_error", "drop", "hang"])
async def test_no_fault_leaks_as_anything_but_an_infrastructure_error(fault: str):
    async with asked(**faulty(fault), patience=BRIEF) as client:
        with pytest.raises(InfrastructureError) as caught:
            await client.propose("Write a kernel", soon())

    assert type(caught.value).__module__.startswith("kernelsearch.")


async def test_a_server_that_dies_mid_stream_ends_as_unavailable():
    heard: list[int] = []
    async with asked(small(pace=Pace(tokens_per_second=5, first_token_seconds=0)), patience=UNHURRIED) as client:
        asking = asyncio.create_task(client.propose("Write a kernel", soon(), heard.append))
        await until(lambda: heard)

    with pytest.raises(InfrastructureError):
        await asking
