"""The loop with its real clients over real HTTP: the replay model, and a verifier service that knows the verdicts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

from fake_verifier import FakeVerifier, running
from fakes import FakeProgress, LoopClock, MemoryArchive, MemoryStore, Recorder, search
from kernelsearch.clients import errors, model, pool, verifier
from kernelsearch.replay import server
from kernelsearch.replay.script import Pace
from kernelsearch.search import loop
from kernelsearch.search.facts import Outcome, Reason
from kernelsearch.search.ports import LiveSpec, Service, Trouble
from kernelverify_api.request import Options
from replayed import faulty, quickstart, verdicts
from waiting import until

ALL = {"no_code", "compile_error", "incorrect", "reward_hack", "correct"}
BACKOFF = errors.Backoff(first_s=0.02, longest_s=0.05)
MODEL = model.Patience(first_token_s=0.5, stall_s=0.3, give_up_s=1.0, backoff=BACKOFF)
VERIFIER = pool.Patience(poll_s=0.2, answer_s=5.0, give_up_s=1.0, backoff=BACKOFF)


def knowing() -> FakeVerifier:
    judge = verdicts()
    return FakeVerifier(judge=lambda asked: judge(asked.source, asked.options.level))


@dataclass
class Search:
    """A search in real time, and what it left behind."""

    deadline: float = 200.0
    max_attempts: int = 9
    faults: tuple = ()
    pace: float = 1e5
    """Tokens per second."""
    server_key: str = ""
    chains: int = 2
    grace: float = 1.0
    unavailable: float = 100.0
    verifiers: list[FakeVerifier] = field(default_factory=lambda: [knowing()])
    archive: MemoryArchive = field(default_factory=MemoryArchive)
    progress: FakeProgress = field(default_factory=FakeProgress)
    observer: Recorder = field(default_factory=Recorder)

    async def run(self, meanwhile=None) -> Outcome:
        """To its end; `meanwhile` runs beside it."""
        async with self._clients() as (proposer, judge, clock):
            beside = asyncio.ensure_future(meanwhile()) if meanwhile else None
            outcome = await loop.run(
                search(
                    chains=self.chains,
                    heartbeat_seconds=0.2,
                    grace_seconds=self.grace,
                    unavailable_seconds=self.unavailable,
                ),
                proposer=proposer,
                verifier=judge,
                store=MemoryStore(),
                archive=self.archive,
                progress=self.progress,
                clock=clock,
                observer=self.observer,
            )
            if beside is not None:
                await beside
        return outcome

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[tuple]:
        clock = self.progress.clock = LoopClock()
        clock.now()
        self.progress.spec = LiveSpec(deadline=self.deadline, max_attempts=self.max_attempts)
        written = quickstart().model_copy(update={"pace": Pace(tokens_per_second=self.pace, first_token_seconds=0)})
        settings = server.Settings(port=0, faults=self.faults, api_key=self.server_key)
        async with server.serving(written, settings) as url, running(*self.verifiers) as urls:
            endpoint = model.Endpoint(url, "replay:quickstart")
            problem = search().problem
            async with (
                model.ModelClient(endpoint, clock, patience=MODEL, random=Random(1)) as proposer,
                verifier.VerifierClient(
                    urls, problem, clock, options=Options(), patience=VERIFIER, random=Random(1)
                ) as judge,
            ):
                yield proposer, judge, clock

    @property
    def verdicts(self) -> set[str]:
        return {record["verdict"] for record in self.archive.records}

    @property
    def best(self) -> float:
        return float(self.progress.published[-1]["best"]["speedup"])

    @property
    def troubles(self) -> set[Service]:
        return {trouble.service for trouble in self.observer.of(Trouble)}


async def test_the_quickstarts_answers_lead_through_every_verdict_to_a_fast_kernel():
    world = Search()
    outcome = await world.run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert world.verdicts >= ALL
    assert world.best == 2.6
    assert {record["answer"]["model"] for record in world.archive.records} == {"replay:quickstart"}


@pytest.mark.parametrize(
    "faults",
    [
        ("rate_limit:every=2,retry_after=0.05",),
        ("server_error:every=3",),
        ("drop:every=3,after=30",),
        ("stall:requests=2+5,after=30",),
        ("hang:requests=1+4",),
        ("rate_limit:every=4,retry_after=0", "server_error:every=3", "drop:every=5"),
    ],
    ids=lambda faults: "+".join(fault.split(":")[0] for fault in faults),
)
async def test_a_model_server_that_fails_now_and_then_changes_nothing_of_the_result(faults: tuple[str, ...]):
    world = Search(**faulty(*faults))
    outcome = await world.run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert world.verdicts >= ALL
    assert world.best == 2.6


async def test_a_model_that_never_stops_thinking_ends_with_the_deadline():
    world = Search(deadline=4.0, pace=200, **faulty("endless"))
    outcome = await asyncio.wait_for(world.run(), timeout=60)

    assert outcome.reason is Reason.NO_CORRECT_KERNEL
    assert world.progress.published[-1]["attempts"]["total"] == 0
    assert world.progress.published[-1]["tokens"]["completion"] > 50


async def test_a_model_that_hangs_ends_the_search_in_bounded_time_with_the_reason():
    world = Search(unavailable=1.5, **faulty("hang"))
    outcome = await asyncio.wait_for(world.run(), timeout=60)

    assert outcome.reason is Reason.MODEL_UNAVAILABLE
    assert "waited 0.5 s" in outcome.message


async def test_a_wrong_key_ends_the_search_at_once_with_the_remedy():
    world = Search(server_key="right")
    outcome = await asyncio.wait_for(world.run(), timeout=60)

    assert outcome.reason is Reason.MODEL_UNAVAILABLE
    assert "apiKeySecretRef" in outcome.message


async def test_a_verifier_that_vanishes_and_comes_back_costs_the_search_no_attempt():
    only = knowing()
    only.seconds = 0.1
    world = Search(verifiers=[only])

    async def restart() -> None:
        await until(lambda: only.waits)
        await only.vanish()
        await asyncio.sleep(0.5)
        await only.come_back()

    outcome = await world.run(restart)

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert world.verdicts >= ALL
    assert world.best == 2.6


async def test_verifiers_that_stay_away_end_the_search_with_the_reason():
    only = knowing()
    only.seconds = 3600.0
    world = Search(unavailable=1.5, verifiers=[only])

    async def kill() -> None:
        await until(lambda: only.waits)
        await only.vanish()

    outcome = await asyncio.wait_for(world.run(kill), timeout=60)

    assert outcome.reason is Reason.VERIFIERS_UNAVAILABLE
    assert Service.VERIFIER in world.troubles


async def test_nothing_of_a_fault_reaches_the_model():
    world = Search(**faulty("rate_limit:every=2,retry_after=0", "server_error:every=3"))
    await world.run()

    prompts = " ".join(record["prompt"] for record in world.archive.records)
    assert not any(word in prompts for word in ("429", "HTTP", "replay was told", "infra"))
