"""Why and when a search ends. Virtual time: a quarter of an hour passes in milliseconds."""

import asyncio

import pytest

from fakes import (
    FakeModel,
    FakeProgress,
    FakeVerifier,
    MemoryArchive,
    MemoryStore,
    World,
    answer,
    coded,
    model_down,
    report,
    search,
    timing,
    verifier_down,
)
from kernelsearch.search.facts import Reason
from kernelsearch.search.ports import (
    AttemptDropped,
    Finish,
    InfrastructureError,
    LiveSpec,
    ModelUnavailableError,
    Service,
    Trouble,
    UnusableProblemError,
)
from kernelverify_api import report as r


def wrong(*_):
    return report("incorrect")


def test_the_deadline_with_a_correct_kernel_is_its_own_reason():
    world = World()

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert world.status["outcome"]["reason"] == "DeadlineReached"


def test_the_deadline_without_a_correct_kernel_says_what_there_was():
    world = World(verifier=FakeVerifier(wrong))

    outcome = world.run()

    assert outcome.reason is Reason.NO_CORRECT_KERNEL
    assert outcome.message == "the deadline of 600 s was reached; none of 40 attempts was correct: 40 incorrect"


def test_no_attempt_starts_after_the_deadline():
    world = World(config=search(chains=3), model=FakeModel(seconds=70.0))

    world.run()

    assert max(world.model.began) < 600


def test_an_answer_cut_at_the_deadline_is_no_attempt_but_costs_its_tokens():
    world = World(model=FakeModel(seconds=400.0), verifier=FakeVerifier(seconds=5.0))

    world.run()

    assert world.verdicts == ["correct", "cut"]
    assert world.status["attempts"]["total"] == 1
    assert world.status["tokens"] == {"prompt": 200, "completion": 1050, "reasoning": 550}


def test_an_evaluation_in_flight_at_the_deadline_gets_the_grace_period():
    world = World(model=FakeModel(seconds=590.0), verifier=FakeVerifier(seconds=30.0))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert world.status["best"]["speedup"] == "1.5"
    assert 600 < world.ended_at <= 660


def test_a_kernel_whose_figure_could_not_be_confirmed_in_time_is_kept_without_it():
    world = World(model=FakeModel(seconds=590.0), verifier=FakeVerifier(seconds=50.0))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert "speedup" not in world.status["best"]
    assert world.status["attempts"]["correct"] == 1


def test_the_target_counts_only_when_re_verified():
    def judge(candidate, _):
        return report("correct", ratio=3.0 if candidate.level == "full" else 1.4)

    world = World(verifier=FakeVerifier(judge), progress=FakeProgress(LiveSpec(deadline=600, target_speedup=2.0)))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert world.status["best"]["speedup"] == "1.4"


def test_a_re_verified_target_ends_the_search_at_once():
    world = World(
        config=search(chains=4),
        progress=FakeProgress(LiveSpec(deadline=600, target_speedup=1.5)),
        verifier=slow_others(),
    )

    outcome = world.run()

    assert outcome.reason is Reason.TARGET_REACHED
    assert "1.5 times as fast as eager, re-verified" in outcome.message
    assert world.ended_at < 30


def slow_others():
    """The first kernel is judged quickly, all others hang."""
    verifier = FakeVerifier()

    async def verify(candidate, deadline):
        verifier.seconds = 1.0 if candidate.attempt == 1 else 10_000.0
        return await FakeVerifier.verify(verifier, candidate, deadline)

    verifier.verify = verify
    return verifier


def test_the_limit_of_attempts_holds_with_many_chains():
    world = World(config=search(chains=5), progress=FakeProgress(LiveSpec(deadline=600, max_attempts=7)))

    outcome = world.run()

    assert outcome.reason is Reason.ATTEMPTS_EXHAUSTED
    assert len(world.verdicts) == 7
    assert len(world.model.prompts) == 7


def test_the_limit_of_tokens_drops_what_is_still_being_generated():
    world = World(config=search(chains=2), progress=FakeProgress(LiveSpec(deadline=600, max_tokens=5000)))

    outcome = world.run()

    assert outcome.reason is Reason.BUDGET_EXHAUSTED
    assert outcome.message.endswith("of 5000 tokens are spent")
    assert world.ended_at < 100


def test_tokens_in_flight_count_against_the_limit():
    model = FakeModel(lambda *_: coded(tokens=50), seconds=500)
    world = World(model=model, progress=FakeProgress(LiveSpec(deadline=600, max_tokens=1)))

    outcome = world.run()

    assert outcome.reason is Reason.NO_CORRECT_KERNEL
    assert world.ended_at < 10
    assert world.observer.of(AttemptDropped)


def test_a_model_that_is_gone_ends_the_search_after_the_time_allowed():
    world = World(config=search(chains=2, unavailable_seconds=120), model=FakeModel(lambda *_: model_down))

    outcome = world.run()

    assert outcome.reason is Reason.MODEL_UNAVAILABLE
    assert "connection refused" in outcome.message
    assert 120 <= world.ended_at < 200
    assert world.status["attempts"]["total"] == 0


def test_verifiers_that_are_gone_end_the_search_after_the_time_allowed():
    world = World(config=search(unavailable_seconds=120), verifier=FakeVerifier(lambda *_: verifier_down))

    outcome = world.run()

    assert outcome.reason is Reason.VERIFIERS_UNAVAILABLE
    assert 120 <= world.ended_at < 200


def test_the_time_allowed_begins_anew_with_each_answer():
    def reply(_, number):
        return coded() if number % 8 == 0 else model_down

    world = World(config=search(unavailable_seconds=200), model=FakeModel(reply, seconds=1.0))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED


def test_an_adapter_that_retried_by_itself_says_since_when():
    error = ModelUnavailableError("gave up")
    error.since = 0.0
    world = World(config=search(unavailable_seconds=120), model=FakeModel(lambda *_: error, seconds=119.0))

    world.run()

    assert world.ended_at == pytest.approx(120, abs=3)


def test_a_refused_key_ends_the_search_at_once():
    class RefusedError(ModelUnavailableError):
        retry = False

    world = World(model=FakeModel(lambda *_: RefusedError("HTTP 401: check the API key")))

    outcome = world.run()

    assert outcome.reason is Reason.MODEL_UNAVAILABLE
    assert outcome.message == "HTTP 401: check the API key"
    assert world.ended_at < 15


def test_a_problem_that_the_verifier_refuses_ends_the_search():
    world = World(verifier=FakeVerifier(lambda *_: UnusableProblemError("line 3: no class Model")))

    outcome = world.run()

    assert outcome.reason is Reason.PROBLEM_UNSOLVABLE
    assert outcome.message == "line 3: no class Model"


def test_stop_ends_the_search_and_keeps_what_was_found():
    world = World(progress=FakeProgress(at={100.0: LiveSpec(deadline=600, stop=True)}))

    outcome = world.run()

    assert outcome.reason is Reason.CANCELLED
    assert world.status["best"]["speedup"] == "1.5"
    assert 100 <= world.ended_at < 106


def test_suspend_drops_what_is_in_flight_and_is_no_outcome():
    progress = FakeProgress(at={12.0: LiveSpec(deadline=600, suspend=True)})
    world = World(config=search(chains=2), progress=progress, verifier=FakeVerifier(seconds=30))

    outcome = world.run()

    assert outcome.reason is Reason.SUSPENDED
    assert "outcome" not in world.status
    assert world.status["attempts"]["total"] == 0
    assert world.status["attempts"]["inFlight"] == 0
    assert len(world.observer.of(AttemptDropped)) == 2


def test_suspend_drops_a_kernel_that_waits_for_its_confirmation_too():
    progress = FakeProgress(at={50.0: LiveSpec(deadline=600, suspend=True)})
    world = World(progress=progress, verifier=FakeVerifier(seconds=30))

    world.run()

    assert world.status["attempts"]["total"] == 0


def test_a_grace_period_that_was_changed_meanwhile_counts():
    longer = LiveSpec(deadline=600, grace_seconds=500)
    world = World(
        model=FakeModel(seconds=590.0), verifier=FakeVerifier(seconds=400.0), progress=FakeProgress(at={50.0: longer})
    )

    world.run()

    assert world.status["attempts"]["correct"] == 1
    assert 990 < world.ended_at <= 1100


def test_a_patience_that_was_changed_meanwhile_counts():
    shorter = LiveSpec(deadline=600, unavailable_seconds=60)
    world = World(
        config=search(unavailable_seconds=500),
        model=FakeModel(lambda *_: model_down),
        progress=FakeProgress(at={30.0: shorter}),
    )

    outcome = world.run()

    assert outcome.reason is Reason.MODEL_UNAVAILABLE
    assert world.ended_at < 120


def test_stop_ends_the_grace_period_too():
    progress = FakeProgress(at={610.0: LiveSpec(deadline=600, stop=True)})
    world = World(model=FakeModel(seconds=590.0), verifier=FakeVerifier(seconds=300.0), progress=progress)

    outcome = world.run()

    assert outcome.reason is Reason.NO_CORRECT_KERNEL
    assert world.ended_at < 616


def test_a_longer_deadline_is_used():
    world = World(progress=FakeProgress(at={300.0: LiveSpec(deadline=900)}))

    world.run()

    assert max(world.model.began) > 700
    assert world.ended_at < 960


def test_a_shorter_deadline_is_obeyed():
    world = World(progress=FakeProgress(at={300.0: LiveSpec(deadline=350)}))

    world.run()

    assert max(world.model.began) < 350
    assert world.ended_at < 410


def test_the_roofline_ends_the_search_when_nothing_is_left_to_gain():
    roofline = r.Roofline(floor_us=64, bound="memory", fraction=0.96)

    def judge(*_):
        return report("correct", ratio=1.5).model_copy(update={"timing": timing(1.5, roofline=roofline)})

    world = World(config=search(chains=3), verifier=FakeVerifier(judge))

    outcome = world.run()

    assert outcome.reason is Reason.TARGET_REACHED
    assert outcome.message == "the best kernel reaches 96% of the roofline: nothing is left to gain"


# Nothing hangs past deadline and grace, whatever an adapter does


class Stubborn:
    """A coroutine that neither ends nor lets itself be cancelled (once; a second time it gives in)."""

    async def __call__(self, *_, **__):
        try:
            await asyncio.sleep(100_000)
        except asyncio.CancelledError:
            await asyncio.sleep(100_000)


@pytest.mark.parametrize("stubborn", [False, True], ids=["hangs", "swallows cancellation"])
@pytest.mark.parametrize(("port", "method"), [("model", "propose"), ("verifier", "verify"), ("archive", "append")])
def test_an_adapter_that_hangs_does_not_hold_the_search(port, method, stubborn):
    world = World(config=search(chains=2))

    async def hang(*_, **__):
        await asyncio.sleep(100_000)

    setattr(getattr(world, port), method, Stubborn() if stubborn else hang)

    outcome = world.run()

    assert outcome.reason in {Reason.NO_CORRECT_KERNEL, Reason.DEADLINE_REACHED}
    assert world.ended_at <= 600 + 60 + 5


def test_a_store_that_begins_to_hang_does_not_hold_the_search():
    world = World(config=search(chains=2))
    save = world.store.save

    async def hang_later(checkpoint):
        await save(checkpoint)
        if world.store.tries > 5:
            await asyncio.sleep(100_000)

    world.store.save = hang_later

    world.run()

    assert world.ended_at <= 600 + 60 + 5


def test_publications_that_hang_do_not_hold_the_search():
    world = World(config=search(chains=2))
    publish = world.progress.publish

    async def hang_later(facts):
        if world.progress.tries > 5:
            await asyncio.sleep(100_000)
        return await publish(facts)

    world.progress.publish = hang_later

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert len(world.verdicts) == 40 * 2
    assert world.ended_at <= 600 + 60 + 5


def test_a_model_that_ignores_its_deadline_is_left_behind():
    world = World(model=FakeModel(seconds=400.0, ignores_deadline=True))

    world.run()

    assert world.ended_at < 610
    assert [dropped.attempt for dropped in world.observer.of(AttemptDropped)] == [2]


def test_what_fails_at_the_deadline_is_not_asked_again():
    world = World(model=FakeModel(lambda *_: model_down, seconds=0.0), config=search(unavailable_seconds=1000))

    world.run()

    assert max(world.model.began) < 600


def test_a_full_disk_under_the_checkpoint_holds_verdicts_back_until_there_is_room():
    world = World(store=MemoryStore(fail=lambda number: 3 <= number < 8))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert {trouble.service for trouble in world.observer.of(Trouble)} == {Service.STORE}
    totals = [facts["attempts"]["total"] for facts in world.progress.published]
    assert totals == sorted(totals)


def test_a_full_disk_under_the_archive_only_warns():
    world = World(archive=MemoryArchive(fail=True))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert world.status["attempts"]["total"] == 40
    assert all(trouble.service is Service.ARCHIVE for trouble in world.observer.of(Trouble))


def test_publications_that_fail_only_warn():
    world = World(progress=FakeProgress(fail=lambda number: 5 < number < 20))

    outcome = world.run()

    assert outcome.reason is Reason.DEADLINE_REACHED
    assert all(trouble.service is Service.PROGRESS for trouble in world.observer.of(Trouble))


def test_stop_is_obeyed_while_nothing_can_be_published():
    progress = FakeProgress(
        LiveSpec(deadline=600), at={30: LiveSpec(deadline=600, stop=True)}, fail=lambda number: number > 2
    )
    world = World(progress=progress)

    outcome = world.run()

    assert outcome.reason is Reason.CANCELLED
    assert world.ended_at < 45


def test_an_ambiguous_figure_is_no_target_reached():
    def judge(candidate, _):
        told = report("correct", ratio=3.0, level=candidate.level)
        unsure = told.timing.speedup.model_copy(update={"verdict": "ambiguous", "ci99": (0.7, 9.0)})
        return told.model_copy(update={"timing": told.timing.model_copy(update={"speedup": unsure})})

    spec = LiveSpec(deadline=600, max_attempts=2, target_speedup=2.0)
    world = World(verifier=FakeVerifier(judge), progress=FakeProgress(spec))

    assert world.run().reason is Reason.ATTEMPTS_EXHAUSTED


def test_the_outcome_is_published_again_when_the_first_try_fails():
    world = World(progress=FakeProgress(LiveSpec(deadline=600, max_attempts=1)))
    publish = world.progress.publish

    async def fail_once(facts):
        if "outcome" in facts and not refused:
            refused.append(facts)
            raise InfrastructureError("the API server is gone")
        return await publish(facts)

    refused = []
    world.progress.publish = fail_once

    world.run()

    assert refused
    assert world.status["outcome"]["reason"] == "AttemptsExhausted"


def test_a_bug_in_an_adapter_comes_out():
    world = World(verifier=FakeVerifier(lambda *_: TypeError("a bug")))

    with pytest.raises(TypeError, match="a bug"):
        world.run()


def test_a_cut_answer_that_holds_its_whole_kernel_is_judged_in_the_grace_period():
    world = World(
        model=FakeModel(lambda *_: coded(finish=Finish.CUT), seconds=599.0), verifier=FakeVerifier(seconds=10)
    )

    world.run()

    assert world.verdicts == ["correct"]


def test_empty_answers_are_attempts_without_code():
    world = World(model=FakeModel(lambda *_: answer("")), progress=FakeProgress(LiveSpec(deadline=600, max_attempts=3)))

    world.run()

    assert world.verdicts == ["no_code"] * 3
    assert world.status["attempts"]["noCode"] == 3
