"""Everything goes wrong at random: the promises of a search hold all the same."""

from random import Random

import pytest

from fakes import FakeModel, FakeProgress, FakeVerifier, World, answer, coded, model_down, report, search, verifier_down
from kernelsearch.search.facts import Reason
from kernelsearch.search.ports import AttemptFinished, AttemptStarted, BestImproved, Finish, LiveSpec

DEADLINE, GRACE = 300.0, 30.0


class Chaos:
    """A world drawn from a seed. The same seed draws the same troubles for the same calls."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(
            config=search(
                chains=self.random.choice([1, 2, 5, 9]),
                strategy=self.random.choice(["Serial", "BestOfN", "Adaptive"]),
                grace_seconds=GRACE,
                unavailable_seconds=self.random.choice([40.0, 1000.0]),
                seed=seed,
            ),
            model=FakeModel(self.reply, ignores_deadline=self.random.random() < 0.2),
            verifier=FakeVerifier(self.judge),
            progress=FakeProgress(
                LiveSpec(
                    DEADLINE,
                    max_attempts=self.random.choice([0, 0, 9]),
                    max_tokens=self.random.choice([0, 0, 30_000]),
                    target_speedup=self.random.choice([None, 3.0]),
                ),
                fail=lambda number: number > 1 and self.random.random() < 0.1,
            ),
        )
        self.world.store.fail = lambda number: number > 1 and self.random.random() < 0.1

    def reply(self, _, number):
        self.world.model.seconds = self.random.choice([0.0, 1.0, 20.0, 90.0, 400.0])
        kinds = [
            lambda: coded(f"k{number}"),
            lambda: coded(f"k{number}", finish=Finish.LENGTH),
            lambda: answer("Hmm"),
            lambda: answer("", finish=Finish.LENGTH),
            lambda: model_down,
        ]
        return self.random.choices(kinds, [8, 1, 1, 1, 3])[0]()

    def judge(self, *_):
        self.world.verifier.seconds = self.random.choice([0.0, 2.0, 15.0, 100.0])
        verdict = self.random.choice(
            ["correct"] * 4
            + ["incorrect", "compile_error", "runtime_error", "timeout", "reward_hack", "suspicious"]
            + ["infra_error", "down", "down"]
        )
        ratio = self.random.uniform(0.3, 4.0) if verdict in {"correct", "suspicious"} else None
        return verifier_down if verdict == "down" else report(verdict, ratio=ratio)


@pytest.mark.parametrize("seed", range(40))
def test_the_promises_hold(seed):
    world = Chaos(seed).world

    outcome = world.run()

    finished = [event for event in world.observer.of(AttemptFinished) if event.verdict != "cut"]
    final = world.status
    assert world.ended_at <= DEADLINE + GRACE + 5
    assert outcome.reason in set(Reason) - {Reason.CANCELLED, Reason.SUSPENDED}
    assert all(began <= DEADLINE for began in world.model.began)
    assert final["attempts"]["total"] >= len(finished)
    assert final["attempts"]["inFlight"] == 0
    assert not any("infra" in prompt or "refused" in prompt for prompt in world.model.prompts)
    ids = [event.attempt for event in world.observer.of(AttemptStarted)]
    assert len(ids) == len(set(ids))
    figures = [event.speedup or 0.0 for event in world.observer.of(BestImproved)]
    assert figures == sorted(figures)
    if outcome.reason is Reason.NO_CORRECT_KERNEL:
        assert "best" not in final
    limit = world.progress.spec.max_attempts
    assert not limit or final["attempts"]["total"] <= limit
