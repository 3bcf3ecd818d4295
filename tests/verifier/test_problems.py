"""Bad problems are refused with line and remedy; degenerate ones are found by the audit; sound ones are sound."""

from pathlib import Path

import pytest

from kernelverify.host import audit, problem
from kernelverify.host.session import Session
from kernelverify_api.request import Problem

PROBLEMS = Path(__file__).resolve().parent.parent / "problems"
BAD = sorted((PROBLEMS / "bad").glob("*.py"))


def _asked(path: Path) -> Problem:
    return Problem(source=path.read_text(), name=path.stem)


def _use(path: Path) -> None:
    session = Session(_asked(path), seed=1)
    session.draw("own")
    session.loaded.baselines()


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_a_bad_problem_is_refused_with_its_remedy(path):
    with pytest.raises(problem.ProblemError) as caught:
        _use(path)

    expected = [
        line.removeprefix("# expect: ") for line in path.read_text().splitlines() if line.startswith("# expect")
    ]
    shown = f"{caught.value.message} {caught.value.line}"
    assert [e for e in expected if e not in shown] == [], shown


def test_there_are_enough_bad_problems():
    assert len(BAD) >= 10


@pytest.mark.parametrize("path", sorted((PROBLEMS / "degenerate").glob("*.py")), ids=lambda p: p.stem)
def test_the_audit_finds_a_degenerate_problem(path):
    report = audit.audit(_asked(path), seed=1)

    assert not report.sound
    assert report.findings


@pytest.mark.parametrize("path", sorted(PROBLEMS.glob("*.py")), ids=lambda p: p.stem)
def test_the_audit_calls_the_corpus_problems_sound(path):
    report = audit.audit(_asked(path), seed=1)

    assert report.sound, report.findings
