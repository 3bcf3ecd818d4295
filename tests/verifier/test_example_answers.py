"""The written answers of the examples, judged by the real command: each earns the verdict that it was written for."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from kernelsearch.replay import script
from kernelsearch.search import extract
from kernelverify_api.request import Language
from replayed import EXAMPLES, answered

EXPECTED = {
    "quickstart": {
        "forgotten-name": "compile_error",
        "wrong-mean": "incorrect",
        "decoy": "reward_hack",
        "scalar-double": "correct",
        "vectorised": "correct",
        "parallel": "correct",
        "two-rows": "correct",
    },
    "attention": {"wrong-scale": "incorrect", "row-by-row": "correct", "blocked": "correct"},
}
FASTEST = {"quickstart": "parallel", "attention": "blocked"}

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(900)]


def check(example: str, names: tuple[str, ...], *arguments: str) -> dict[str, dict]:
    """Reports by answer, of one command over the kernels of these answers."""
    answers = script.load(EXAMPLES / "replay" / f"{example}.yaml").answers
    problem = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text())["spec"]["problem"]["inline"]["reference"]
    with TemporaryDirectory() as folder:
        reference = Path(folder, "reference.py")
        reference.write_text(problem)
        paths = [Path(folder, f"{name}.py") for name in names]
        for name, path in zip(names, paths, strict=True):
            path.write_text(extract.kernel(answered(answers[name]), (Language.CPP,)).source)
        command = [sys.executable, "-m", "kernelverify.cli", "check", *map(str, paths), "--reference", str(reference)]
        done = subprocess.run([*command, "--json", *arguments], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names), done.stderr[-2000:]
    return dict(zip(names, map(json.loads, lines), strict=True))


@cache
def judged(example: str) -> dict[str, dict]:
    return check(example, tuple(EXPECTED[example]))


@pytest.mark.parametrize(("example", "name"), [(e, name) for e, names in EXPECTED.items() for name in names])
def test_a_written_kernel_earns_its_verdict(example: str, name: str):
    report = judged(example)[name]

    assert report["status"] == EXPECTED[example][name], report["summary"]


@pytest.mark.parametrize("example", EXPECTED)
def test_every_written_kernel_is_expected_to_earn_something(example: str):
    answers = script.load(EXAMPLES / "replay" / f"{example}.yaml").answers

    assert set(answers) - set(EXPECTED[example]) <= {"plan-only"}


@pytest.mark.quiet
@pytest.mark.parametrize("example", FASTEST)
def test_the_fastest_written_kernel_beats_eager(example: str):
    name = FASTEST[example]
    report = check(example, (name,), "--level", "full")[name]

    assert report["status"] == "correct", report["summary"]
    assert report["timing"]["speedup"]["ci99"][0] > 1
