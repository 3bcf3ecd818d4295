"""Killed at any instant and started again: only attempts in flight are lost, nothing is repeated, doubled or worse."""

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from fakes import (
    FakeModel,
    FakeProgress,
    FakeVerifier,
    MemoryArchive,
    MemoryStore,
    World,
    coded,
    report,
    search,
    virtually,
)
from kernelsearch.search import checkpoint, ledger
from kernelsearch.search.checkpoint import UnusableCheckpointError
from kernelsearch.search.facts import Reason
from kernelsearch.search.ports import AttemptDropped, AttemptFinished, AttemptStarted, LiveSpec
from kernelverify_api.request import Problem

ATTEMPTS = 14
VERDICTS = ["correct", "incorrect", "compile_error", "correct", "runtime_error", "reward_hack", "correct", "timeout"]
CALLS = {"model": "propose", "verifier": "verify", "store": "save", "archive": "append", "progress": "publish"}


@dataclass
class Remains:
    """What a SIGKILL leaves: what was durable or had left the process."""

    store: MemoryStore = field(default_factory=MemoryStore)
    archive: MemoryArchive = field(default_factory=MemoryArchive)
    published: list = field(default_factory=list)
    events: list = field(default_factory=list)


def world_of(remains: Remains, **parts) -> World:
    world = World(
        config=search(chains=3, **parts),
        model=FakeModel(lambda *_: coded(f"k{len(remains.events)}"), seconds=7.0),
        verifier=FakeVerifier(judge, seconds=3.0),
        store=remains.store,
        archive=remains.archive,
        progress=FakeProgress(LiveSpec(deadline=10_000, max_attempts=ATTEMPTS), published=remains.published),
    )
    world.observer.events = remains.events
    return world


def judge(candidate, _):
    verdict = VERDICTS[candidate.attempt % len(VERDICTS)]
    return report(verdict, ratio=1 + candidate.attempt / 10 if verdict == "correct" else None)


def kill_at(world: World, call: int, after: bool) -> bool:
    """Run until the given call of any port, and kill there, before or after its effect. False when it came to its end.

    From that instant no port does anything any more: what a killed process would not do.
    """
    count = [0]

    def mortal(real, task):
        async def called(*args, **kwargs):
            count[0] += 1
            number = count[0]
            if number > call:
                await asyncio.sleep(1e9)
            if number == call and not after:
                task.cancel()
                await asyncio.sleep(1e9)
            result = await real(*args, **kwargs)
            if count[0] > call or number == call:
                task.cancel()
                await asyncio.sleep(1e9)
            return result

        return called

    async def killed() -> bool:
        task = asyncio.ensure_future(world.play())
        for port, method in CALLS.items():
            setattr(getattr(world, port), method, mortal(getattr(getattr(world, port), method), task))
        try:
            await task
        except asyncio.CancelledError:
            return True
        return False

    try:
        return virtually(killed())
    finally:
        world.store.__dict__.pop("save", None)
        world.archive.__dict__.pop("append", None)


def settled(remains: Remains) -> None:
    """The promises, over all runs together."""
    started = [event.attempt for event in remains.events if isinstance(event, AttemptStarted)]
    assert len(started) == len(set(started)), "an attempt id was repeated"

    final = remains.published[-1]
    assert final["attempts"]["total"] == ATTEMPTS

    archived = [record["attempt"] for record in remains.archive.records]
    assert len(archived) == len(set(archived)), "an attempt was archived twice"
    assert len(archived) <= ATTEMPTS

    sequences = [facts["sequence"] for facts in remains.published]
    assert sequences == sorted(set(sequences)), "the sequence did not grow"
    for counter in ("total", "correct", "infrastructure"):
        counts = [facts["attempts"][counter] for facts in remains.published]
        assert counts == sorted(counts), f"{counter} fell back"
    bests = [float(facts["best"]["speedup"]) for facts in remains.published if "best" in facts]
    assert bests == sorted(bests), "the best became worse"
    assert final["attempts"]["total"] == sum(
        count for verdict, count in final["attempts"].items() if verdict not in {"total", "inFlight", "infrastructure"}
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 70, 3))
def test_a_kill_at_any_call_loses_only_what_is_in_flight(call, after):
    remains = Remains()
    kill_at(world_of(remains), call, after)
    kept = remains.store.text and checkpoint.from_mapping(virtually(remains.store.load()))
    counted = kept.population.counters.total if kept else 0
    finished = len([event for event in remains.events if isinstance(event, AttemptFinished)])
    assert counted >= finished, "a finished attempt was lost"

    outcome = world_of(remains).run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    settled(remains)


@pytest.mark.parametrize("seed", range(8))
def test_a_search_that_is_killed_again_and_again_ends_as_it_should(seed):
    random = Random(seed)
    remains = Remains()
    for _ in range(20):
        if not kill_at(world_of(remains), random.randrange(6, 40), random.random() < 0.5):
            break
    else:
        world_of(remains).run()

    settled(remains)


@pytest.mark.parametrize("moment", [0.0, 3.0, 7.0, 8.5, 10.0, 13.0, 17.5, 23.0, 31.0])
def test_a_kill_between_calls_is_no_different(moment):
    remains = Remains()

    async def killed():
        task = asyncio.ensure_future(world_of(remains).play())
        await asyncio.sleep(moment)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    virtually(killed())

    world_of(remains).run()

    settled(remains)


@pytest.mark.parametrize("lost", ["before it was written", "by hand"])
def test_a_best_kernel_that_was_lost_is_kept_again_by_whoever_resumes(lost):
    remains = Remains()
    kill_at(world_of(remains), 24, after=True)
    found = checkpoint.from_mapping(virtually(remains.store.load())).population.best
    assert found
    remains.archive.best = None if lost == "by hand" else {"source": "an earlier one"}
    resumed = world_of(remains)
    resumed.verifier = FakeVerifier(lambda *_: report("incorrect"))

    resumed.run()

    assert remains.archive.best["source"] == found.source
    assert remains.archive.best["attempt"] == found.id


def test_a_best_kernel_that_was_lost_in_mid_search_is_kept_again():
    world = World(progress=FakeProgress(LiveSpec(deadline=600)), model=FakeModel(lambda *_: coded(), seconds=20.0))
    seen = []

    async def lose():
        playing = asyncio.ensure_future(world.play())
        await asyncio.sleep(300)
        world.archive.best = None
        await asyncio.sleep(ledger.KEEP_SECONDS + 1)
        seen.append(world.archive.best)
        world.archive.best = None
        world.archive.fail = True
        await asyncio.sleep(200)
        world.archive.fail = False
        return await playing

    virtually(lose())

    assert all("class ModelNew" in each["source"] for each in (*seen, world.archive.best))


def test_a_resumed_search_goes_on_where_each_chain_stood():
    remains = Remains()
    kill_at(world_of(remains), 24, after=True)
    before = len([event for event in remains.events if isinstance(event, AttemptStarted)])

    world_of(remains).run()

    steps = [event.step for event in remains.events if isinstance(event, AttemptStarted)]
    assert steps[:3] == ["fresh"] * 3
    assert "fresh" not in steps[before:]


def test_a_resumed_search_keeps_the_problem_that_it_began_with():
    remains = Remains()
    kill_at(world_of(remains, uid="u-1"), 20, after=True)
    edited = world_of(remains, uid="u-1", problem=Problem(source="edited", name="relu"))

    edited.run()

    assert not any("edited" in prompt for prompt in edited.model.prompts)


def test_the_checkpoint_of_another_search_is_refused():
    remains = Remains()
    kill_at(world_of(remains, uid="u-1"), 20, after=True)

    with pytest.raises(UnusableCheckpointError, match="uid 'u-1', this one is 'u-2': remove it"):
        world_of(remains, uid="u-2").run()


def test_on_a_laptop_the_checkpoint_of_another_problem_is_refused():
    remains = Remains()
    kill_at(world_of(remains), 20, after=True)

    with pytest.raises(UnusableCheckpointError, match=r"another problem \('relu'\).*choose another name"):
        world_of(remains, problem=Problem(source="another", name="another")).run()


def test_the_clock_of_a_resumed_search_can_be_set_from_the_checkpoint():
    remains = Remains()
    kill_at(world_of(remains), 30, after=True)

    begin = checkpoint.seconds_used(virtually(remains.store.load()))

    assert begin >= 10
    world_of(remains).run(begin=begin)
    seconds = [attempt["seconds"] for attempt in remains.published[-1]["recentAttempts"]]
    assert seconds == sorted(seconds)


def test_a_search_may_be_resumed_with_more_or_fewer_chains():
    remains = Remains()
    kill_at(world_of(remains), 30, after=True)

    for chains, attempts in ((5, ATTEMPTS + 5), (2, ATTEMPTS + 9)):
        world = world_of(remains)
        world.config = search(chains=chains)
        world.progress.spec = LiveSpec(deadline=10_000, max_attempts=attempts)
        world.run()
        assert remains.published[-1]["attempts"]["total"] == attempts


def test_a_suspended_search_goes_on_without_what_was_in_flight():
    remains = Remains()
    world = world_of(remains)
    world.progress.at = {20.0: LiveSpec(deadline=10_000, suspend=True)}
    world.run()
    dropped = {event.attempt for event in remains.events if isinstance(event, AttemptDropped)}

    world_of(remains).run()

    settled(remains)
    assert dropped
    assert not dropped & {record["attempt"] for record in remains.archive.records}
