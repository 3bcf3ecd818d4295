"""What became of an attempt: from answers and reports to what is remembered and archived."""

import json
import math

import pytest

from fakes import answer, report, source, timing
from kernelsearch.search import verdict
from kernelsearch.search.extract import Kernel, NoKernel
from kernelsearch.search.population import Attempt, Kind, Verdict
from kernelsearch.search.ports import Finish
from kernelsearch.search.strategy import Fresh, Improve, Repair, Restart
from kernelsearch.search.verdict import Asked
from kernelverify_api import report as r
from kernelverify_api.request import Language

ASKED = Asked(5, 2, Kind.IMPROVE, began=10.0, base=3, on_correct=True, idea="Wider loads.")
KERNEL = Kernel(source(), Language.CPP)
EARLIER = Attempt(3, 2, Kind.FRESH, Verdict.INCORRECT, 9.0, "", idea="Fuse.", on_correct=True)


def judged(full, champion=None) -> Attempt:
    return verdict.attempt(ASKED, answer("code"), KERNEL, (full, champion), now=42.0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Fresh("Fuse."), Asked(5, 2, Kind.FRESH, 1.0, None, on_correct=False, idea="Fuse.")),
        (Restart("Tile."), Asked(5, 2, Kind.RESTART, 1.0, None, on_correct=False, idea="Tile.")),
        (Improve(EARLIER, "Widen."), Asked(5, 2, Kind.IMPROVE, 1.0, 3, on_correct=True, idea="Widen.")),
        (Repair(EARLIER), Asked(5, 2, Kind.REPAIR, 1.0, 3, on_correct=True, idea="Fuse.")),
    ],
)
def test_each_step_becomes_what_is_asked(step, expected):
    assert verdict.asked(5, 2, step, began=1.0) == expected


@pytest.mark.parametrize(
    ("finish", "expected"),
    [(Finish.STOP, Verdict.NO_CODE), (Finish.LENGTH, Verdict.TRUNCATED), (Finish.CUT, Verdict.CUT)],
)
def test_answers_without_a_kernel_are_told_apart(finish, expected):
    found = verdict.attempt(ASKED, answer("", finish=finish), NoKernel("there is none"), (None, None), now=42.0)

    assert (found.verdict, found.reason, found.source) == (expected, "there is none", "")
    assert bool(found.feedback) is (expected is not Verdict.CUT)


@pytest.mark.parametrize("status", [s for s in r.Status if s not in {r.Status.INFRA_ERROR, r.Status.CANCELLED}])
def test_every_status_of_a_kernel_has_its_verdict(status):
    found = judged(report(status))

    assert found.verdict == status.value
    assert found.feedback
    assert bool(found.error_class) is (status is not r.Status.CORRECT)


def test_the_second_verification_overrules_the_first():
    found = judged(report("correct", ratio=2.0), report("incorrect"))

    assert (found.verdict, found.speedup, found.confirmed) == (Verdict.INCORRECT, None, False)


def test_a_confirmed_figure_is_that_of_the_second_verification():
    found = judged(report("correct", ratio=2.0), report("correct", ratio=1.7))

    assert (found.speedup, found.confirmed) == (1.7, True)
    assert found.ci99 == pytest.approx((1.7 * 0.98, 1.7 * 1.02))
    assert (found.baseline, found.baseline_us) == ("eager", 100.0)


def test_what_bounds_the_kernel_is_remembered():
    roofline = r.Roofline(floor_us=30.0, bound="compute", fraction=0.4)
    found = judged(report("correct").model_copy(update={"timing": timing(1.5, roofline=roofline)}))

    assert (found.bound, found.roofline) == ("compute", 0.4)


@pytest.mark.parametrize("ratio", [math.inf, math.nan])
def test_a_figure_that_is_none_is_not_remembered(ratio):
    assert judged(report("correct", ratio=ratio)).speedup is None


def test_a_kernel_without_a_report_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="attempt 5 has a kernel and no report"):
        verdict.attempt(ASKED, answer("code"), KERNEL, (None, None), now=1.0)


# Classes of failures


def compile_error(message: str) -> r.Report:
    return report("compile_error", build=r.Build(ok=False, errors=(r.BuildMessage(file="a.cpp", message=message),)))


def test_equal_mistakes_in_other_places_are_one_class():
    one = verdict.error_class(compile_error("error: \u2018foo\u2019 was not declared in this scope (line 12)"))
    other = verdict.error_class(compile_error("error: \u2018bar2\u2019 was not declared in this scope (line 47)\nmore"))

    assert one == other == "compile_error:error: was not declared in this scope (line )"


def test_other_mistakes_are_other_classes():
    classes = {
        verdict.error_class(each)
        for each in (
            compile_error("error: expected ';'"),
            compile_error("error: no matching function"),
            report("compile_error", failure=r.Failure(kind="SyntaxError", stage="import")),
            report("runtime_error", failure=r.Failure(kind="SIGSEGV", stage="forward")),
            report("runtime_error", failure=r.Failure(kind="IndexError", stage="forward")),
            report("timeout", failure=r.Failure(kind="timeout", stage="forward")),
            report("incorrect", correctness=wrong(pattern="row tail")),
            report("incorrect", correctness=wrong(pattern="nan")),
            report("reward_hack"),
            report("suspicious"),
        )
    }

    assert len(classes) == 10


def wrong(**parts) -> r.Correctness:
    return r.Correctness(ok=False, sets=(r.SetResult(name="own", ok=False, **parts),))


# The archive


def test_the_record_is_json_and_whole():
    found = judged(report("correct", ratio=2.0), report("correct", ratio=1.7))

    record = verdict.as_record(ASKED, "the prompt", answer("code"), found, (report("correct"), None))

    assert json.loads(json.dumps(record)) == record
    assert record["answer"]["tokens"] == {"prompt": 100, "completion": 1000, "reasoning": 500, "estimated": False}
    assert (record["attempt"], record["chain"], record["step"], record["base"]) == (5, 2, "improve", 3)
    assert (record["full"]["schema"], record["champion"]) == (1, None)


def test_a_record_without_a_kernel_says_so():
    found = verdict.attempt(ASKED, answer(""), NoKernel("there is none"), (None, None), now=42.0)

    record = verdict.as_record(ASKED, "the prompt", answer(""), found, (None, None))

    assert (record["source"], record["language"], record["verdict"]) == (None, None, "no_code")
