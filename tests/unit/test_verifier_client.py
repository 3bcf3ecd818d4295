"""The verifier client against real HTTP: a fake service that speaks the real contract, with real failures."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from aiohttp import web

from fake_verifier import CAPABILITIES, FakeVerifier, refusal, running
from kernelsearch.clients import errors
from kernelsearch.clients.pool import Patience
from kernelsearch.clients.verifier import VerifierClient
from kernelsearch.search.ports import (
    Candidate,
    InfrastructureError,
    UnusableProblemError,
    VerifierUnavailableError,
)
from kernelverify_api.report import Status
from kernelverify_api.request import MAX_SOURCE, Language, Level, Options, Problem, TorchOps
from waiting import until

PROBLEM = Problem(source="class Model: ...", name="demo")
QUICK = Patience(
    poll_s=0.2,
    answer_s=20.0,
    cancel_s=20.0,
    give_up_s=30.0,
    backoff=errors.Backoff(first_s=0.02, longest_s=0.05),
)
BRIEF = replace(QUICK, give_up_s=1.0)
"""For what lasts."""
ENDLESS = 3600.0
"""Seconds of a job that no test waits for."""


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def candidate(source: str = "class ModelNew: ...", attempt: int = 1, language: str = "cpp") -> Candidate:
    return Candidate(attempt=attempt, source=source, language=language, level=Level.FULL)


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def client(urls: list[str], patience: Patience = QUICK, **options) -> VerifierClient:
    return VerifierClient(urls, PROBLEM, RealClock(), patience=patience, random=Random(1), **options)


def gone() -> FakeVerifier:
    """A verifier whose address nobody listens on."""
    return FakeVerifier(url="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "status", [s for s in Status if s not in {Status.INFRA_ERROR, Status.CANCELLED}], ids=lambda s: s.value
)
async def test_every_verdict_on_the_candidate_is_a_value(status: Status):
    async with running(FakeVerifier(statuses=[status])) as urls, client(urls) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is status


async def test_the_request_says_all_that_the_contract_asks_for():
    verifier = FakeVerifier()
    options = Options(torch_ops=TorchOps.FORBID, baselines=("eager", "flexAttention"))
    async with running(verifier) as urls, client(urls, options=options, client="ns/search") as asked:
        await asked.verify(candidate("text"), soon(100))

    evaluation = verifier.jobs["j1"].evaluation
    assert evaluation.problem == PROBLEM
    assert evaluation.source == "text"
    assert evaluation.language is Language.CPP
    assert evaluation.options == options.model_copy(update={"level": Level.FULL})
    assert evaluation.client == "ns/search"
    assert evaluation.idempotency_key
    assert 50 < evaluation.deadline_s <= 100


async def test_a_language_that_the_contract_does_not_know_is_left_out():
    verifier = FakeVerifier()
    async with running(verifier) as urls, client(urls) as asked:
        await asked.verify(candidate(language="mojo"), soon())

    assert verifier.jobs["j1"].evaluation.language is None


async def test_equal_candidates_are_different_submissions():
    verifier = FakeVerifier()
    async with running(verifier) as urls, client(urls) as asked:
        await asked.verify(candidate(), soon())
        await asked.verify(candidate(), soon())

    assert len(verifier.jobs) == 2


async def test_a_long_job_is_waited_on_by_several_long_polls():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: len(verifier.waits) >= 3)
        verifier.seconds = 0
        report = await judging

    assert report.status is Status.CORRECT
    assert len(verifier.jobs) == 1
    assert set(verifier.waits) == {"0.2"}


async def test_candidates_spread_over_the_verifiers():
    verifiers = [FakeVerifier(seconds=0.15) for _ in range(3)]
    async with running(*verifiers) as urls, client(urls) as asked:
        await asyncio.gather(*(asked.verify(candidate(attempt=n), soon()) for n in range(6)))

    assert [len(verifier.jobs) for verifier in verifiers] == [2, 2, 2]


async def test_a_verifier_busy_with_others_gets_the_next_candidate_later():
    busy, idle = FakeVerifier(seconds=ENDLESS, position=7), FakeVerifier(seconds=ENDLESS)
    async with running(busy, idle) as urls, client(urls) as asked:
        first = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: busy.waits)
        others = [asyncio.create_task(asked.verify(candidate(), soon())) for _ in range(3)]
        await until(lambda: len(busy.jobs) + len(idle.jobs) == 4)
        busy.seconds = idle.seconds = 0
        await asyncio.gather(first, *others)

    assert len(busy.jobs) == 1
    assert len(idle.jobs) == 3


async def test_a_full_queue_sends_the_candidate_to_another_verifier():
    full, free = FakeVerifier(refusals=[refusal(429, "queue full", Retry_After="60")]), FakeVerifier()
    async with running(full, free) as urls, client(urls) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is Status.CORRECT
    assert not full.jobs
    assert len(free.jobs) == 1


async def test_retry_after_is_honoured():
    verifier = FakeVerifier(refusals=[refusal(429, "queue full", Retry_After="0.4")])
    async with running(verifier) as urls, client(urls) as asked:
        start = time.monotonic()
        await asked.verify(candidate(), soon())

    assert time.monotonic() - start >= 0.4


async def test_a_verifier_that_is_not_there_is_passed_over():
    verifier = FakeVerifier()
    async with running(verifier) as urls, client([gone().url, *urls]) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is Status.CORRECT


async def test_a_job_whose_verifier_vanishes_is_submitted_elsewhere():
    first, second = FakeVerifier(seconds=ENDLESS), FakeVerifier()
    async with running(first, second) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: first.waits)
        await first.vanish()
        report = await judging

    assert report.status is Status.CORRECT
    assert len(second.jobs) == 1


async def test_a_job_whose_only_verifier_vanishes_is_submitted_again_once_it_is_back():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: verifier.waits)
        await verifier.vanish()
        verifier.seconds = 0
        await asyncio.sleep(0.2)
        await verifier.come_back()
        report = await judging

    assert report.status is Status.CORRECT
    assert len(verifier.jobs) == 2


async def test_a_restarted_verifier_that_forgot_the_job_gets_it_again():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: verifier.waits)
        verifier.jobs.clear()
        verifier.keys.clear()
        await until(lambda: verifier.jobs)
        verifier.seconds = 0
        report = await judging

    assert report.status is Status.CORRECT


async def test_a_broken_connection_finds_the_job_again_by_its_key():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: verifier.waits)
        for connection in list(verifier._runner.server.connections):
            connection.transport.abort()
        polls = len(verifier.waits)
        await until(lambda: len(verifier.waits) > polls)
        verifier.seconds = 0
        report = await judging

    assert report.status is Status.CORRECT
    assert len(verifier.jobs) == 1


@pytest.mark.parametrize("status", [Status.INFRA_ERROR, Status.CANCELLED], ids=lambda s: s.value)
async def test_what_the_verifier_could_not_do_is_tried_again(status: Status):
    verifier = FakeVerifier(statuses=[status])
    async with running(verifier) as urls, client(urls) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is Status.CORRECT
    assert len(verifier.jobs) == 2


@pytest.mark.parametrize(("status", "count"), [(Status.CANCELLED, 5), (Status.INFRA_ERROR, 2)])
async def test_a_candidate_whose_submissions_keep_getting_lost_is_given_up(status, count):
    verifier = FakeVerifier(statuses=[status] * 20)
    async with running(verifier) as urls, client(urls) as asked:
        with pytest.raises(
            VerifierUnavailableError, match=rf"{count} submissions of one candidate were lost.*verifier's log"
        ):
            await asked.verify(candidate(), soon())

    assert len(verifier.jobs) == count


async def test_without_any_verifier_it_gives_up_in_time_and_says_what_to_do():
    async with client([gone().url], BRIEF) as asked:
        start = time.monotonic()
        with pytest.raises(VerifierUnavailableError, match=r"no verifier could be used in time.*readyz"):
            await asked.verify(candidate(), soon(60))

    assert time.monotonic() - start < 40


async def test_the_deadline_ends_the_wait_and_cancels_the_job():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        with pytest.raises(VerifierUnavailableError, match="deadline"):
            await asked.verify(candidate(), soon(4))

    assert verifier.cancelled == ["j1"]


async def test_a_deadline_that_has_passed_submits_nothing():
    verifier = FakeVerifier()
    async with running(verifier) as urls, client(urls) as asked:
        with pytest.raises(VerifierUnavailableError):
            await asked.verify(candidate(), soon(-1))

    assert not verifier.jobs


async def test_cancelling_the_caller_cancels_the_job():
    verifier = FakeVerifier(seconds=ENDLESS)
    async with running(verifier) as urls, client(urls) as asked:
        judging = asyncio.create_task(asked.verify(candidate(), soon()))
        await until(lambda: verifier.waits)
        judging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await judging

    assert verifier.cancelled == ["j1"]


async def test_a_request_that_the_verifier_does_not_take_is_not_repeated():
    verifier = FakeVerifier(refusals=[refusal(400, "baselines is []; name at least one", "options.baselines")])
    async with running(verifier) as urls, client(urls) as asked:
        with pytest.raises(errors.VerifierRefusedError, match=r"400: options\.baselines: baselines is \[\]") as caught:
            await asked.verify(candidate(), soon())

    assert not caught.value.retry


async def test_a_problem_that_the_verifier_does_not_take_is_the_users():
    verifier = FakeVerifier(refusals=[refusal(422, "line 3: get_inputs is missing", "problem.source")])
    async with running(verifier) as urls, client(urls) as asked:
        with pytest.raises(UnusableProblemError, match=r"problem\.source: line 3: get_inputs is missing"):
            await asked.verify(candidate(), soon())


async def test_a_job_that_failed_says_why_the_problem_cannot_be_used():
    async with running(FakeVerifier(fails=True)) as urls, client(urls) as asked:
        with pytest.raises(UnusableProblemError, match=r"options\.baselines: no baseline 'flexx'; this problem offers"):
            await asked.verify(candidate(), soon())


async def test_giving_up_tells_since_when():
    start = time.monotonic()
    async with client([gone().url], BRIEF) as asked:
        with pytest.raises(VerifierUnavailableError) as caught:
            await asked.verify(candidate(), soon(60))

    assert start <= caught.value.since <= start + 30


async def test_a_source_too_long_for_any_verifier_is_the_candidates_fault():
    verifier = FakeVerifier()
    async with running(verifier) as urls, client(urls) as asked:
        report = await asked.verify(candidate("x" * (MAX_SOURCE + 1)), soon())

    assert report.status is Status.COMPILE_ERROR
    assert str(MAX_SOURCE) in report.summary
    assert not verifier.jobs


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(text="<html>a proxy's login page</html>", content_type="text/html"),
        web.Response(text=json.dumps({"id": "j1"}), content_type="application/json"),
        web.Response(status=502, text="bad gateway"),
        web.Response(body=b"\xff\xfe\x00", content_type="application/json"),
        web.Response(text="x" * (5 * 2**20)),
    ],
    ids=["html", "other version", "502", "no text", "too long"],
)
async def test_what_is_no_verifiers_answer_is_tried_again_and_never_leaks(answer: web.Response):
    verifier = FakeVerifier(refusals=[answer])
    async with running(verifier) as urls, client(urls) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is Status.CORRECT


async def test_something_that_never_becomes_a_verifier_ends_as_an_infrastructure_error():
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", _surprise)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with client([f"http://127.0.0.1:{runner.addresses[0][1]}"], BRIEF) as asked:
        with pytest.raises(InfrastructureError, match="is it a verifier of this version"):
            await asked.verify(candidate(), soon())
    await runner.cleanup()


async def _surprise(_: web.Request) -> web.Response:
    return web.Response(text="surprise")


async def test_capabilities_come_from_the_first_verifier_that_answers():
    verifier = FakeVerifier(refusals=[refusal(503, "starting", Retry_After="0.1")])
    async with running(verifier) as urls, client([gone().url, *urls]) as asked:
        capabilities = await asked.capabilities(soon())

    assert capabilities == CAPABILITIES


async def test_the_problem_can_be_audited():
    async with running(FakeVerifier()) as urls, client(urls) as asked:
        report = await asked.audit(soon())

    assert report.sound
    assert report.problem == "demo"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_a_url_that_is_none_is_refused_with_the_form_to_write(url: str):
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        client([url])


async def test_a_pool_without_verifiers_is_borne_for_a_while():
    async with client([], replace(QUICK, give_up_s=0.3)) as asked:
        with pytest.raises(VerifierUnavailableError, match="no verifier could be used in time"):
            await asked.verify(candidate(), soon(5))


async def test_a_verifier_found_meanwhile_gets_the_waiting_candidate():
    async with running(FakeVerifier()) as urls, client([]) as asked:
        waiting = asyncio.create_task(asked.verify(candidate(), soon()))
        await asyncio.sleep(0.1)
        asked.renew(urls)

        assert (await waiting).status is Status.CORRECT


async def test_the_token_is_read_anew_for_each_request():
    tokens = iter(f"t{n}" for n in range(99))
    verifier = FakeVerifier()
    async with running(verifier) as urls, client(urls, token=lambda: next(tokens)) as asked:
        await asked.verify(candidate(), soon())

    assert verifier.tokens[0] == "Bearer t0"
    assert len(set(verifier.tokens)) == len(verifier.tokens) > 1


async def test_a_refused_token_is_the_clusters_fault_and_tried_again():
    verifier = FakeVerifier(refusals=[refusal(401, "a key that is not known yet")])
    async with running(verifier) as urls, client(urls) as asked:
        report = await asked.verify(candidate(), soon())

    assert report.status is Status.CORRECT


def test_backoff_doubles_up_to_its_limit_with_jitter():
    backoff = errors.Backoff(first_s=1, longest_s=8)
    random = Random(0)

    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (500, 8)):
        delays = {backoff.delay(failures, None, random) for _ in range(50)}
        assert longest / 2 <= min(delays) < max(delays) <= longest


def test_backoff_never_comes_before_retry_after_and_bounds_absurd_ones():
    backoff = errors.Backoff(first_s=1, longest_s=8)

    assert 5 <= backoff.delay(1, 5.0, Random(0)) <= 5.5
    assert backoff.delay(1, 86400.0, Random(0)) <= errors.LONGEST_RETRY_AFTER + 1


def test_retry_after_is_read_in_both_of_its_forms():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    date = (now + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT")

    assert errors.retry_after({"Retry-After": "2.5"}) == 2.5
    assert errors.retry_after({"retry-after": date}, now) == 30
    assert errors.retry_after({"retry-after": date}, now + timedelta(hours=1)) == 0
    assert errors.retry_after({"retry-after": "soon"}) is None
    assert errors.retry_after({}) is None
