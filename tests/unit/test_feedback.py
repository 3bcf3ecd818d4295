"""What the model is told about each verdict, and what it is never told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from fakes import report, timing
from kernelsearch.search import feedback, untrusted
from kernelverify_api import report as r
from kernelverify_api.request import Language

FENCE = "```"


def wrong(**parts) -> r.Report:
    defaults = {"name": "own", "ok": False, "shapes": ((48, 333),), "max_abs": 0.52, "max_abs_allowed": 1e-5}
    correctness = r.Correctness(ok=False, sets=(r.SetResult(**{**defaults, **parts}),))
    return report("incorrect", correctness=correctness)


def failed(status: str = "runtime_error", **parts) -> r.Report:
    defaults = {"kind": "RuntimeError", "stage": "forward", "message": "expected Float", "line": 7}
    return report(status, failure=r.Failure(**{**defaults, **parts}))


def broken(*messages: str) -> r.Report:
    errors = tuple(r.BuildMessage(file="/tmp/b/main.cpp", line=12, message=message) for message in messages)
    return report("compile_error", build=r.Build(ok=False, errors=errors))


def on(device: str, told: r.Report) -> r.Report:
    return told.model_copy(update={"environment": r.Environment(device=device, torch="2")})


# compile_error


def test_compiler_errors_come_with_their_place_and_line():
    words = feedback.words(broken("error: expected ';' before '}'\n   12 |   return out\n      |             ^"))

    assert "main.cpp:12: error: expected ';'" in words
    assert "return out" in words
    assert "/tmp/b" not in words


def test_build_noise_is_removed():
    noise = ["ninja: build stopped", "FAILED: main.o", "In file included from x.h", "/usr/bin/c++ -O3 x"]

    words = feedback.words(broken("\n".join([*noise, "error: no member named 'foo'"])))

    assert "no member named 'foo'" in words
    assert "ninja" not in words
    assert "FAILED" not in words
    assert "c++ -O3" not in words


def test_compiler_errors_are_bounded_and_the_first_ones_stay():
    words = feedback.words(broken(*(f"error: number {n} {'x' * 500}" for n in range(100))))

    assert "number 0" in words
    assert len(words) < feedback.MAX_ERRORS + 200


def test_a_module_that_cannot_be_parsed_is_a_compile_error_with_its_line():
    words = feedback.words(failed("compile_error", kind="SyntaxError", stage="import", source_line="def f(:"))

    assert "SyntaxError in stage import" in words
    assert "At line 7 of your code" in words
    assert "def f(:" in words


# incorrect


def test_a_wrong_result_names_inputs_error_and_limit():
    words = feedback.words(wrong(normwise=0.25, normwise_allowed=1e-6, mismatch_fraction=0.125))

    assert "On the problem's own inputs (shapes (48, 333)):" in words
    assert "largest absolute error: 0.52, allowed 1e-05" in words
    assert "relative error of the whole output (norms): 0.25, allowed 1e-06" in words
    assert "elements beyond the limit: 12.500%" in words


def test_samples_show_what_came_and_what_should():
    words = feedback.words(wrong(worst=(r.Sample(index=(0, 332), got="0.0", want="1.5"),)))

    assert "index [0, 332]: got 0.0, want 1.5" in words


@pytest.mark.parametrize(("pattern", "words"), feedback.PATTERNS.items())
def test_patterns_are_told_in_words(pattern, words):
    assert words in feedback.words(wrong(pattern=pattern))


def test_the_detail_of_a_pattern_is_told_too():
    words = feedback.words(wrong(pattern="row tail, columns from 320 of 333"))

    assert f"{feedback.PATTERNS['row tail']} (columns from 320 of 333)" in words


def test_sets_of_one_kind_are_described_once():
    sets = tuple(r.SetResult(name=name, ok=False, max_abs=0.5) for name in ("own", "own_2", "own_3", "flipped"))

    words = feedback.words(report("incorrect", correctness=r.Correctness(ok=False, sets=sets)))

    assert words.count("On the problem's own inputs:") == 1
    assert words.count("On the problem's own inputs with random signs:") == 1


def test_an_unknown_pattern_is_told_as_it_is():
    assert "where: every other column" in feedback.words(wrong(pattern="every other column"))


def test_a_reason_comes_before_numbers():
    words = feedback.words(wrong(reason="shape (2, 3) where (3, 2) is expected"))

    assert "- shape (2, 3) where (3, 2) is expected" in words


def test_sets_that_pass_are_named_too():
    correctness = r.Correctness(
        ok=False, sets=(r.SetResult(name="own", ok=True), r.SetResult(name="flipped", ok=False, max_abs=1.0))
    )

    words = feedback.words(report("incorrect", correctness=correctness))

    assert "On the problem's own inputs with random signs:" in words
    assert "It is right on the problem's own inputs." in words


@pytest.mark.parametrize("precision", ["tf32", "tf32 or fp16", "fp16", "bf16"])
def test_low_precision_inside_is_named(precision):
    told = wrong()
    told = told.model_copy(update={"correctness": told.correctness.model_copy(update={"precision_class": precision})})

    assert feedback.PRECISION[precision] in feedback.words(told)


@pytest.mark.parametrize(
    ("device", "language", "said"),
    [("cuda:0", Language.TRITON, True), ("cpu", Language.TRITON, False), ("cuda:0", Language.CUDA, False)],
)
def test_triton_on_a_gpu_hears_of_its_dot(device, language, said):
    told = wrong()
    told = told.model_copy(update={"correctness": told.correctness.model_copy(update={"precision_class": "tf32"})})

    assert ('input_precision="ieee"' in feedback.words(on(device, told), language)) is said


def test_a_race_is_named():
    told = wrong()
    told = told.model_copy(update={"correctness": told.correctness.model_copy(update={"deterministic": False})})

    assert "look for a race" in feedback.words(told)


# runtime_error, timeout, suspicious, reward_hack


def test_a_crash_names_kind_stage_and_line():
    words = feedback.words(failed(kind="SIGSEGV", source_line="out[i] = x[i]"))

    assert "SIGSEGV in stage forward." in words
    assert "At line 7 of your code" in words
    assert "out[i] = x[i]" in words


def test_a_timeout_names_its_stage():
    words = feedback.words(failed("timeout", kind="timeout", line=None))

    assert "in stage forward" in words
    assert "endless loop" in words


def test_an_implausible_time_says_what_the_device_allows():
    roofline = r.Roofline(floor_us=90.0, bound="memory", fraction=9.0)
    told = report("suspicious").model_copy(update={"timing": timing(10.0, roofline=roofline)})

    words = feedback.words(told)

    assert "Measured: 10 µs; the memory limit of this device allows no less than 90 µs" in words
    assert "counts only when a second measurement confirms it" in words


def test_a_disturbed_measurement_is_not_told_as_an_implausible_one():
    flag = r.Flag(rule="baseline_disturbed", severity="critical", evidence="900 us beside, 100 us alone")
    roofline = r.Roofline(floor_us=120.0, bound="memory", fraction=0.1)
    told = report("suspicious").model_copy(
        update={"timing": timing(0.1, roofline=roofline), "integrity": r.Integrity(flags=(flag,))}
    )

    words = feedback.words(told)

    assert "its speed is not known yet" in words
    assert "limit of this device" not in words


def test_a_cheat_hears_only_what_a_solution_must_do():
    told = report("reward_hack").model_copy(
        update={
            "summary": "ablation zeros: right",
            "integrity": r.Integrity(flags=(r.Flag(rule="no_try_except", severity="critical", evidence="line 4"),)),
            "kernels": r.Kernels(ablation={"zeros": "right"}),
        }
    )

    words = feedback.words(told)

    assert "its own kernel computes the result" in words
    for secret in ("ablation", "zeros", "no_try_except", "line 4", "rule", "hack", "cheat"):
        assert secret not in words


# correct


def test_a_correct_kernel_hears_its_time_against_each_baseline():
    told = report("correct", ratio=1.5)
    compiled = r.Speedup(vs="compile", ratio=0.9, ci99=(0.85, 0.95), pairs=50, verdict="slower")
    speedups = (*told.timing.speedups, compiled)
    told = told.model_copy(update={"timing": told.timing.model_copy(update={"speedups": speedups})})

    words = feedback.words(told)

    assert "It takes 66.67 µs a call" in words
    assert "1.50 times as fast as eager (99 % interval 1.47 to 1.53)" in words
    assert "0.90 times as fast as compile" in words


def test_a_correct_kernel_hears_what_bounds_it():
    roofline = r.Roofline(floor_us=30.0, bound="memory", fraction=0.45)
    told = report("correct").model_copy(update={"timing": timing(1.5, roofline=roofline)})

    assert "It reaches 45% of what the device allows; the problem is bound by memory bandwidth." in feedback.words(told)


def test_a_correct_kernel_hears_of_registers_and_spills():
    built = r.BuiltKernel(name="softmax_kernel", registers=64, shared=4096, spills=12)
    told = report("correct", ratio=1.5, build=r.Build(ok=True, kernels=(built,)))

    assert "softmax_kernel: 64 registers a thread, 4096 bytes of shared memory, 12 bytes spilled" in feedback.words(
        told
    )


def test_torch_operators_on_the_way_are_named():
    told = report("correct", ratio=1.5, kernels=r.Kernels(torch_ops={"aten.mm": 2}))

    assert "aten.mm ×2" in feedback.words(told)


def test_an_untimed_kernel_hears_why():
    assert "It was not timed" in feedback.words(report("correct"))


# Answers without a kernel, and infrastructure


def test_no_kernel_says_which_form_is_needed():
    assert "exactly one fenced code block" in feedback.no_kernel("the answer holds no code block")


def test_truncated_asks_for_less():
    assert "Think briefly" in feedback.truncated()


@pytest.mark.parametrize("status", ["infra_error", "cancelled"])
def test_infrastructure_is_never_put_into_words(status):
    with pytest.raises(ValueError, match="the attempt is to be repeated"):
        feedback.words(report(status))


# Untrusted text


def hostile(text: str) -> list[r.Report]:
    sample = r.Sample(index=(0,), got=text, want=text)
    return [
        failed(kind=text, stage=text, message=text, source_line=text),
        failed("timeout", kind=text, stage=text, source_line=text),
        failed("compile_error", message=text),
        broken(text, text),
        wrong(reason=text, pattern=text, worst=(sample,), name=text),
        report("suspicious").model_copy(update={"summary": text}),
        report("compile_error").model_copy(update={"summary": text}),
        report("correct", ratio=1.1, kernels=r.Kernels(torch_ops={text: 1})),
    ]


@given(strategies.hostile_text)
def test_no_text_of_a_candidate_closes_a_fence_or_carries_controls(text):
    for told in hostile(text):
        words = feedback.words(told)
        assert len(words) <= feedback.MAX_WORDS
        fences = [line for line in words.split("\n") if line.lstrip().startswith((FENCE, "~~~"))]
        assert fences == [f"{FENCE}text", FENCE] * (len(fences) // 2)
        assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in words)
        words.encode()


@given(strategies.hostile_text | st.text(alphabet="`x\n", max_size=60))
def test_quoted_code_stays_inside_its_fence(text):
    quoted = untrusted.code(text, limit=1000)
    first, *inside, last = quoted.split("\n")

    assert first == last + "python"
    assert last not in inside


def test_code_is_quoted_unchanged():
    source = 'x = """\n```\n"""\n\tif a: b'

    assert untrusted.code(source, 1000) == f"````python\n{source}\n````"


def test_long_text_says_how_long_it_was():
    assert untrusted.shortened("x" * 5000, 100).endswith("[5000 characters, the rest is left out]")
    assert len(untrusted.shortened("x" * 5000, 100)) == 100


def test_a_line_is_one_line():
    assert untrusted.line("a\n\n b\t`c`\x1b[31m") == "a b 'c'[31m"
    assert untrusted.line("x" * 300, 10) == "xxxxxxxxx…"
