"""What one search does between its beginning and its end."""

import asyncio

import pytest

from fakes import (
    FakeModel,
    FakeProgress,
    FakeVerifier,
    World,
    answer,
    coded,
    in_turn,
    model_down,
    report,
    search,
    source,
    verifier_down,
    virtually,
)
from kernelsearch.search import loop, ports, prompts
from kernelsearch.search.facts import Reason
from kernelsearch.search.patience import POISON
from kernelsearch.search.ports import (
    AttemptDropped,
    AttemptFinished,
    AttemptStarted,
    BestImproved,
    Ended,
    Finish,
    LiveSpec,
    ModelUnavailableError,
    Started,
    TokensSoFar,
    Trouble,
    Verifying,
)
from kernelverify_api import report as r
from kernelverify_api.request import Level


def few(attempts: int) -> FakeProgress:
    return FakeProgress(LiveSpec(deadline=600, max_attempts=attempts))


# Feedback closes the loop


def test_a_failure_is_repaired_with_what_the_verifier_found():
    failure = report("runtime_error").model_copy(update={"summary": "segmentation fault"})
    world = World(verifier=FakeVerifier(in_turn([failure, report("correct", ratio=1.5)])), progress=few(2))

    world.run()

    assert "# Task: repair" in world.model.prompts[1]
    assert "segmentation fault" in world.model.prompts[1]
    assert source("k1").strip() in world.model.prompts[1]


def test_a_success_is_improved_with_what_the_verifier_measured():
    world = World(progress=few(2))

    world.run()

    assert "# Task: make it faster" in world.model.prompts[1]
    assert "1.50 times as fast as eager" in world.model.prompts[1]


def test_the_first_success_anywhere_turns_the_other_chains_to_improvement():
    def judge(candidate, _):
        return report("correct", ratio=1.5) if candidate.attempt == 1 else report("incorrect")

    world = World(config=search(chains=3), verifier=FakeVerifier(judge), progress=few(6))

    world.run()

    steps = [event.step for event in world.observer.of(AttemptStarted)]
    assert steps == ["fresh", "fresh", "fresh", "repair", "repair", "improve"]


def test_chains_start_from_different_ideas():
    world = World(config=search(chains=8), progress=few(8))

    world.run()

    assert len({event.idea for event in world.observer.of(AttemptStarted)}) == 8


def test_a_chain_that_is_stuck_starts_again_from_another_idea():
    world = World(verifier=FakeVerifier(lambda *_: report("incorrect")), progress=few(4))

    world.run()

    assert [event.step for event in world.observer.of(AttemptStarted)] == ["fresh", "repair", "repair", "restart"]


def test_serial_uses_one_chain():
    world = World(config=search(chains=8, strategy="Serial"), progress=few(3))

    world.run()

    assert {event.chain for event in world.observer.of(AttemptStarted)} == {0}


def test_adaptive_is_not_built_yet_and_says_so():
    world = World(config=search(strategy="Adaptive"), progress=few(1))

    world.run()

    (started,) = world.observer.of(Started)
    assert started.strategy == "BestOfN"
    assert started.note == "strategy Adaptive is not built yet: this search runs BestOfN in its place"


def test_an_answer_without_code_is_told_which_form_is_needed():
    model = FakeModel(in_turn([answer("I cannot do that."), coded()]))
    world = World(model=model, progress=few(2))

    world.run()

    assert world.verdicts == ["no_code", "correct"]
    assert "exactly one fenced code block" in world.model.prompts[1]


def test_a_truncated_answer_is_asked_for_a_shorter_one():
    model = FakeModel(in_turn([answer("Hmm, so", finish=Finish.LENGTH), coded()]))
    world = World(model=model, progress=few(2))

    world.run()

    assert world.verdicts == ["truncated", "correct"]
    assert "Think briefly" in world.model.prompts[1]


def test_thoughts_are_never_sent_back():
    model = FakeModel(lambda *_: coded(reasoning="my secret thought"))
    world = World(model=model, verifier=FakeVerifier(lambda *_: report("incorrect")), progress=few(3))

    world.run()

    assert not any("my secret thought" in prompt for prompt in world.model.prompts)


# The champion


def test_only_what_would_be_the_new_best_is_verified_again():
    ratios = {"k1": 1.5, "k2": 1.2, "k3": 1.7}

    def judge(candidate, _):
        return report("correct", ratio=next(ratio for name, ratio in ratios.items() if name in candidate.source))

    world = World(verifier=FakeVerifier(judge), progress=few(3))

    world.run()

    levels = [(seen.attempt, seen.level) for seen in world.verifier.seen]
    assert levels == [(1, "full"), (1, "champion"), (2, "full"), (3, "full"), (3, "champion")]


def test_the_best_carries_the_figure_of_the_second_verification_only():
    def judge(candidate, _):
        return report("correct", ratio=2.0 if candidate.level is Level.FULL else 1.3)

    world = World(verifier=FakeVerifier(judge), progress=few(1))

    world.run()

    assert world.status["best"]["speedup"] == "1.3"
    assert world.status["recentAttempts"][0]["speedup"] == "1.3"


@pytest.mark.parametrize("verdict", ["incorrect", "suspicious", "reward_hack", "runtime_error", "timeout"])
def test_a_kernel_that_fails_its_second_verification_is_judged_by_it(verdict):
    def judge(candidate, _):
        return report("correct", ratio=2.0) if candidate.level is Level.FULL else report(verdict)

    world = World(verifier=FakeVerifier(judge), progress=few(1))

    world.run()

    assert world.verdicts == [verdict]
    assert "best" not in world.status


def test_a_suspicious_kernel_becomes_best_only_when_confirmed():
    def judge(candidate, _):
        return report("suspicious" if candidate.level is Level.FULL else "correct", ratio=12.0)

    world = World(verifier=FakeVerifier(judge), progress=few(1))

    world.run()

    assert world.status["best"]["speedup"] == "12"


def test_a_suspicious_kernel_that_stays_so_never_becomes_best():
    world = World(verifier=FakeVerifier(lambda *_: report("suspicious", ratio=12.0)), progress=few(2))

    world.run()

    assert world.verdicts == ["suspicious", "suspicious"]
    assert "best" not in world.status


def unless_champion(candidate, number):  # noqa: ARG001 - as judges are called
    return verifier_down if candidate.level is Level.CHAMPION else report("correct", ratio=2.0)


def test_a_kernel_that_can_only_not_be_verified_again_is_kept_without_its_figure():
    world = World(verifier=FakeVerifier(unless_champion), progress=few(1))

    outcome = world.run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert world.verdicts == ["correct"]
    assert world.status["best"]["attempt"] == 1
    assert "speedup" not in world.status["best"]
    assert world.status["attempts"]["infrastructure"] == POISON


def disturbed(candidate, _):
    """As on a busy machine."""
    flag = r.Flag(rule="baseline_disturbed", severity="critical", evidence="900 us beside, 100 us alone")
    told = report("suspicious", ratio=1.5, level=candidate.level)
    return told.model_copy(update={"integrity": r.Integrity(flags=(flag,))})


def test_a_measurement_that_was_disturbed_is_repeated_and_never_told():
    judge = in_turn([disturbed(ports.Candidate(1, "", "cpp", Level.FULL), 1), report("correct", ratio=1.5)])
    world = World(verifier=FakeVerifier(judge), progress=few(1))

    world.run()

    assert world.verdicts == ["correct"]
    assert world.status["attempts"]["suspicious"] == 0
    assert world.status["attempts"]["infrastructure"] == 1


def test_a_candidate_that_disturbs_each_measurement_is_suspicious_in_the_end():
    world = World(verifier=FakeVerifier(disturbed), progress=few(1))

    world.run()

    assert world.verdicts == ["suspicious"]
    assert len(world.verifier.seen) == 2 * loop.MEASURED


def test_the_best_is_never_replaced_by_the_latest():
    ratios = in_turn([2.0, 2.0, 1.1, 1.9, 0.5])
    world = World(verifier=FakeVerifier(lambda *_: report("correct", ratio=ratios())), progress=few(4))

    world.run()

    assert [facts["best"]["speedup"] for facts in world.progress.published if "best" in facts][-1] == "2"


def test_a_kernel_that_cannot_be_timed_is_a_result_too():
    world = World(verifier=FakeVerifier(lambda *_: report("correct")), progress=few(2))

    world.run()

    assert world.status["best"]["attempt"] == 1
    assert "speedup" not in world.status["best"]


# Whose fault is it


def test_what_the_model_server_broke_is_repeated_and_no_attempt():
    model = FakeModel(in_turn([model_down, model_down, coded()]))
    world = World(model=model, progress=few(1))

    world.run()

    assert len(set(world.model.prompts)) == 1
    assert world.status["attempts"]["total"] == 1
    assert world.status["attempts"]["infrastructure"] == 2


def test_tokens_of_a_broken_stream_are_paid_for():
    world = World(model=FakeModel(in_turn([model_down, coded(tokens=1000)])), progress=few(1))

    world.run()

    assert world.status["tokens"]["completion"] == 1 + 1000


def test_what_the_verifier_broke_is_repeated_without_asking_the_model_again():
    judge = in_turn([verifier_down, report("infra_error"), report("cancelled"), report("correct", ratio=1.5)])
    world = World(verifier=FakeVerifier(judge), progress=few(1))

    world.run()

    assert len(world.model.prompts) == 1
    assert world.status["attempts"]["infrastructure"] == 3
    assert world.verdicts == ["correct"]


def test_the_model_never_hears_of_infrastructure():
    judge = in_turn([verifier_down, report("incorrect"), verifier_down, report("correct", ratio=1.1)])
    world = World(verifier=FakeVerifier(judge), progress=few(3))

    world.run()

    for prompt in world.model.prompts:
        assert "no verifier answers" not in prompt
        assert "infra" not in prompt


def test_retries_wait_longer_each_time():
    world = World(model=FakeModel(lambda *_: model_down, seconds=0.0), config=search(unavailable_seconds=100))

    world.run()

    waits = [trouble.retry_in for trouble in world.observer.of(Trouble)]
    assert waits[:6] == [1, 2, 4, 8, 16, 30]


def test_a_single_refused_prompt_makes_the_chain_start_afresh():
    class RefusedError(ModelUnavailableError):
        retry = False

    def reply(prompt, _):
        return RefusedError("HTTP 400: the prompt is too long") if "# Task: repair" in prompt else coded()

    world = World(
        model=FakeModel(reply),
        verifier=FakeVerifier(lambda *_: report("incorrect")),
        progress=FakeProgress(LiveSpec(100)),
    )

    world.run()

    steps = [event.step for event in world.observer.of(AttemptStarted)]
    assert steps[:4] == ["fresh", "repair", "fresh", "repair"]
    assert set(world.verdicts) <= {"incorrect", "cut"}


def test_a_candidate_that_takes_the_verifier_down_each_time_does_not_end_the_search():
    def judge(candidate, _):
        return verifier_down if "k1" in candidate.source else report("correct", ratio=1.5)

    world = World(verifier=FakeVerifier(judge), progress=few(2), config=search(unavailable_seconds=300))

    outcome = world.run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert [dropped.attempt for dropped in world.observer.of(AttemptDropped)] == [1]
    assert [event.step for event in world.observer.of(AttemptStarted)] == ["fresh", "fresh", "improve"]


# What lasts, and in which order


def test_after_a_verdict_come_checkpoint_then_archive_then_facts():
    world = World(progress=few(3))
    order = []
    wrap(world.store, "save", lambda saved: order.append(("saved", saved["population"]["counters"]["correct"])))
    wrap(world.archive, "append", lambda record: order.append(("archived", record["attempt"])))
    wrap(world.progress, "publish", lambda facts: order.append(("published", facts["attempts"]["total"])))

    world.run()

    for number in (1, 2, 3):
        first = [order.index((what, number)) for what in ("saved", "archived", "published")]
        assert first == sorted(first)


def wrap(port, method, note):
    real = getattr(port, method)

    async def noted(value):
        note(value)
        return await real(value)

    setattr(port, method, noted)


def test_facts_are_never_ahead_of_the_checkpoint():
    world = World(config=search(chains=4), progress=few(12))
    saved = [0]
    real = world.store.save

    async def slow(checkpoint):
        await asyncio.sleep(3.0)
        await real(checkpoint)
        saved[0] = sum(
            count for verdict, count in checkpoint["population"]["counters"].items() if verdict != "infrastructure"
        )

    def note(facts):
        assert facts["attempts"]["total"] <= saved[0]

    world.store.save = slow
    wrap(world.progress, "publish", note)

    world.run()

    assert saved[0] == 12


def test_verdicts_that_come_in_during_a_save_share_the_next_one():
    world = World(config=search(chains=8), progress=few(8))
    real = world.store.save

    async def slow(checkpoint):
        await asyncio.sleep(1.0)
        await real(checkpoint)

    world.store.save = slow

    world.run()

    assert len(world.store.saves) <= 5


def test_ids_are_saved_before_they_are_used():
    world = World(config=search(chains=5), progress=few(60))
    used = []

    def reply(_, number):
        used.append((number, world.store.saves[-1]["next_id"]))
        return coded()

    world.model.reply = reply

    world.run()

    started = [event.attempt for event in world.observer.of(AttemptStarted)]
    assert all(number < reserved for number, (_, reserved) in zip(started, used, strict=True))


def test_the_archive_holds_the_whole_attempt():
    world = World(progress=few(1))

    world.run()

    (record,) = world.archive.records
    assert record["prompt"] == world.model.prompts[0]
    assert record["answer"]["reasoning"] == "Let me think."
    assert record["answer"]["finish"] == "stop"
    assert record["source"] == source("k1")
    assert record["full"]["status"] == record["champion"]["status"] == "correct"
    assert record["promptVersion"] == prompts.VERSION
    assert record["best"] is True


def test_events_tell_the_story_of_an_attempt():
    world = World(progress=few(1))

    world.run()

    kinds = [type(event) for event in world.observer.events]
    assert kinds == [
        Started,
        AttemptStarted,
        TokensSoFar,
        TokensSoFar,
        Verifying,
        Verifying,
        AttemptFinished,
        BestImproved,
        Ended,
    ]


def test_the_facts_are_published_as_a_heartbeat_while_nothing_happens():
    world = World(model=FakeModel(seconds=300.0), progress=few(1))

    world.run()

    assert len(world.progress.published) >= 300 / 5


def test_equal_seeds_make_equal_searches():
    def ideas(seed):
        world = World(config=search(chains=4, seed=seed), progress=few(20))
        world.run()
        return [(event.chain, event.step, event.idea) for event in world.observer.of(AttemptStarted)]

    assert ideas(1) == ideas(1)
    assert ideas(1) != ideas(2)


def test_cancelling_the_task_leaves_nothing_running():
    world = World(config=search(chains=3))

    async def cancelled():
        task = asyncio.ensure_future(world.play())
        await asyncio.sleep(100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    assert virtually(cancelled()) == []
