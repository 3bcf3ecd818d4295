"""The written answers of the examples: they lead a real loop through all that they promise."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from fakes import FakeModel, FakeVerifier, World, search
from kernelsearch.replay import script
from kernelsearch.replay.chooser import Chooser
from kernelsearch.replay.faults import Kind
from kernelsearch.search import extract
from kernelsearch.search.ports import LiveSpec
from kernelverify_api.request import Language
from replayed import EXAMPLES, answered, quickstart, verdicts

SCRIPTS = sorted((EXAMPLES / "replay").glob("*.yaml"))


@dataclass
class Restless(FakeModel):
    """Takes another time for each answer."""

    dice: random.Random = field(default_factory=random.Random)

    async def propose(self, prompt, deadline, on_tokens=None):
        self.seconds = self.dice.uniform(1, 60)
        return await super().propose(prompt, deadline, on_tokens)


@dataclass
class Slow(FakeVerifier):
    """Takes another time for each verdict."""

    dice: random.Random = field(default_factory=random.Random)

    async def verify(self, candidate, deadline):
        self.seconds = self.dice.uniform(1, 60)
        return await super().verify(candidate, deadline)


def demo(chains: int, seed: int) -> World:
    """The quickstart's loop in virtual time: its written answers, and the verdicts that they earn."""
    chooser = Chooser(quickstart())
    verdict = verdicts()
    world = World(
        config=search(chains=chains, seed=seed),
        model=Restless(
            reply=lambda prompt, _: answered(chooser.choose(prompt).answer), dice=random.Random(f"model {seed}")
        ),
        verifier=Slow(
            judge=lambda asked, _: verdict(asked.source, asked.level), dice=random.Random(f"verifier {seed}")
        ),
    )
    world.progress.spec = LiveSpec(deadline=3600, max_attempts=9)
    return world


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("chains", [1, 2])
def test_the_quickstart_goes_through_all_that_can_happen(chains: int, seed: int):
    world = demo(chains, seed)
    world.run()

    assert {"no_code", "compile_error", "incorrect", "reward_hack", "correct"} <= set(world.verdicts)
    figures = [point["bestSpeedup"] for point in world.status["curve"]]
    assert float(figures[0]) < 1 < float(figures[-1])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_written_answer_holds_a_kernel_unless_its_name_says_otherwise(path: Path):
    for name, written in script.load(path).answers.items():
        kernel = extract.kernel(answered(written), (Language.CPP,))

        assert isinstance(kernel, extract.NoKernel if name == "plan-only" else extract.Kernel), name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_answer_has_a_rule_or_is_the_fallback(path: Path):
    written = script.load(path)
    used = {name for rule in written.rules for name in rule.answers} | {written.fallback}

    assert used == set(written.answers)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_answer_thinks_first(path: Path):
    assert all(len(answer.thought) > 300 for answer in script.load(path).answers.values())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_each_script_belongs_to_an_example_that_asks_for_it_by_name(path: Path):
    example = yaml.safe_load((EXAMPLES / path.name).read_text())

    assert example["spec"]["model"]["name"] == script.load(path).label


def test_the_script_in_the_manual_is_a_valid_one():
    manual = (EXAMPLES.parent / "docs" / "replay.md").read_text()

    assert script.parse(manual.split("```yaml\n")[1].split("```")[0]).label == "replay:hello"


@pytest.mark.parametrize("kind", Kind)
def test_the_manual_describes_every_fault(kind: Kind):
    assert f"| `{kind}` |" in (EXAMPLES.parent / "docs" / "replay.md").read_text()
