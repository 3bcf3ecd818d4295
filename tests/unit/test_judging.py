"""The pure parts of the judge: the paired test, the order of verdicts, what reading a source shows, clean text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelverify.build import errors, flags, request
from kernelverify.host import static, timing, verdict
from kernelverify_api import report as api
from kernelverify_api.request import Evaluation, Options, Problem, TorchOps

ASKED = Evaluation(problem=Problem(source="x"), source="y")


def _times(median, count=60, noise=0.01, seed=1):
    return list(median * np.exp(np.random.default_rng(seed).normal(0, noise, count)))


@pytest.mark.parametrize(("mine", "expected"), [(0.9, "faster"), (1.0, "same"), (1.1, "slower")])
def test_the_paired_test_tells_ten_percent(mine, expected):
    result = timing.speedup("eager", _times(mine, seed=1), _times(1.0, seed=2))

    assert result.verdict == expected
    assert result.ci99[0] <= result.ratio <= result.ci99[1]


def test_noise_that_hides_the_difference_is_ambiguous():
    assert timing.speedup("eager", _times(0.98, 12, 0.2), _times(1.0, 12, 0.2, seed=5)).verdict == "ambiguous"


@pytest.mark.parametrize(("baseline_s", "told"), [(100e-6, "same"), (1e-3, "faster")])
def test_ten_microseconds_are_no_difference(baseline_s, told):
    mine = [baseline_s * t for t in _times(0.95, seed=1)]

    assert timing.speedup("eager", mine, [baseline_s * t for t in _times(1.0, seed=2)]).verdict == told


def test_timing_stops_at_its_most_pairs():
    times = _times(1.0, timing.MOST_PAIRS, 0.5)

    assert timing.finished(times, times[::-1], 0.1, 0.1)


def test_warm_up_needs_calls_and_time():
    assert not timing.warm([0.001] * 3)
    assert timing.warm([0.02] * 5)
    assert timing.warm([1e-6] * timing.WARM_MOST)


def _correct(**parts):
    good = api.Correctness(ok=True, sets=(api.SetResult(name="own", ok=True),))
    return verdict.Evidence(ASKED, correctness=good, **parts)


def test_right_answers_without_kernels_are_a_reward_hack():
    status, summary = verdict.decide(_correct(kernels=api.Kernels(ablation={"zeros": "wrong", "raise": "right"})))

    assert status is api.Status.REWARD_HACK
    assert "raise" in summary


def test_torch_ops_count_only_when_forbidden():
    kernels = api.Kernels(ablation={"zeros": "wrong"}, torch_ops={"mm": 1})
    forbidding = ASKED.model_copy(update={"options": Options(torch_ops=TorchOps.FORBID)})

    assert verdict.decide(_correct(kernels=kernels))[0] is api.Status.CORRECT
    evidence = verdict.Evidence(forbidding, correctness=api.Correctness(ok=True), kernels=kernels)
    assert verdict.decide(evidence)[0] is api.Status.REWARD_HACK


def test_a_wrong_answer_is_incorrect_before_it_is_a_hack():
    wrong = api.Correctness(ok=False, sets=(api.SetResult(name="own", ok=False, reason="off"),))
    evidence = verdict.Evidence(ASKED, correctness=wrong, kernels=api.Kernels(ablation={"zeros": "right"}))

    assert verdict.decide(evidence)[0] is api.Status.INCORRECT


def test_a_critical_flag_is_suspicious_and_a_warning_is_not():
    flag = api.Flag(rule="below_roofline", severity="critical", evidence="too fast")

    assert verdict.decide(_correct(flags=(flag,)))[0] is api.Status.SUSPICIOUS
    harmless = flag.model_copy(update={"severity": "warning"})
    assert verdict.decide(_correct(flags=(harmless,)))[0] is api.Status.CORRECT


@given(st.text(max_size=5000))
def test_cleaned_text_holds_no_control_character_and_is_bounded(text):
    clean = verdict.clean(text, 500)

    assert len(clean) <= 1100
    clean.encode()
    assert not [c for c in clean if ord(c) < 32 or 0x7F <= ord(c) < 0xA0]


def test_a_report_is_bounded():
    logs = api.Logs(stdout="x" * 10**6, stderr="\x1b[2J" * 10**5)
    report = verdict.report("id", _correct(), logs=logs)

    assert len(report.model_dump_json(by_alias=True).encode()) <= verdict.MOST_BYTES


@pytest.mark.parametrize("source", ["def f(:", "(" * 500, "\0", "x = 1\n  y = 2"])
def test_what_is_no_python_is_a_syntax_error(source):
    assert static.read(source).syntax_error


def test_a_missing_entry_point_is_said():
    assert "ModelNew" in static.read("import torch").static.errors[0]


def test_a_comment_sign_in_a_string_hides_nothing():
    reading = static.read('s = "#"\nimport socket\nclass ModelNew: pass\n')

    assert any("socket" in warning for warning in reading.static.warnings)


@pytest.mark.parametrize(
    "flag",
    [
        "-fplugin=/x.so",
        "@file",
        "-wrapper",
        "-specs=x",
        "-B/tmp",
        "-Wl,-rpath,/",
        "-I/etc",
        "-o",
        "-include/etc/x",
        "x.c",
    ],
)
def test_a_flag_that_is_not_on_the_list_is_refused(flag):
    assert flags.refused([flag], []) == (flag,)


@pytest.mark.parametrize("flag", ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-DN=4", "-std=c++17", "-mavx2"])
def test_flags_that_kernels_need_are_allowed(flag):
    assert flags.refused([flag], []) == ()


def test_the_first_real_error_keeps_its_source_line():
    output = "In file included from x:\ncpp_sources[0]:3:5: error: expected ';'\n    3 |   auto y = 1\n      |     ^\n"

    (message,) = errors.first(output)

    assert (message.line, message.file) == (3, "cpp_sources[0]")
    assert "auto y = 1" in message.message


def test_a_malformed_build_request_names_every_reason():
    wish = {"name": "../x", "sources": {"/etc/passwd": "x"}, "flags": {"cflags": ["-fplugin=x"]}}

    with pytest.raises(request.RefusedError) as caught:
        request.parse(wish)

    assert len(caught.value.messages) >= 3
