"""The referee, asked directly: from a source to its report, and what it keeps and hides between evaluations."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from kernelverify.build.service import Builder
from kernelverify.host import session as sessions
from kernelverify.host.candidate import BuildWanted
from kernelverify.host.problem import ProblemError
from kernelverify.host.referee import Referee
from kernelverify_api.report import Stage, Status
from kernelverify_api.request import CustomKernel, Evaluation, Level, Options, Problem

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(300)]

REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(32))

    def forward(self, x):
        return x * self.weight + 1


def get_inputs():
    return [torch.randn(16, 32)]
"""
TRITON = """\
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x_ptr, weight_ptr, out_ptr, columns: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, columns)
    x = tl.load(x_ptr + row * columns + at)
    tl.store(out_ptr + row * columns + at, x * tl.load(weight_ptr + at) + 1)


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(32))

    def forward(self, x):
        out = torch.empty_like(x)
        kernel[(x.shape[0],)](x, self.weight, out, x.shape[1])
        return out
"""
WRONG = TRITON.replace("+ 1)", "+ 2)")
BUILT = '''\
import torch
from torch.utils.cpp_extension import load_inline

SOURCE = """
torch::Tensor run(torch::Tensor x, torch::Tensor w) {
  auto out = torch::empty_like(x);
  const float *a = x.data_ptr<float>(), *b = w.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out.data_ptr<float>()[i] = a[i] * b[i % w.numel()] + 1;
  return out;
}
"""
module = load_inline(name="scale", cpp_sources=[SOURCE], functions=["run"])


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(32))

    def forward(self, x):
        return module.run(x, self.weight)
'''
TORCH = REFERENCE.replace("Model", "ModelNew")
DEGENERATE = Path(__file__).resolve().parent.parent / "problems" / "degenerate"
FILLING = """\
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(out_ptr, value: tl.constexpr, columns: tl.constexpr):
    tl.store(out_ptr + tl.arange(0, columns), tl.full((columns,), value, tl.float32))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty(x.shape[1])
        kernel[(1,)](out, VALUE, x.shape[1])
        return out
"""


@pytest.fixture(scope="module")
def referee(workplace):
    judge = Referee(workplace, threads=1)
    yield judge
    judge.close()


@pytest.fixture
def one_draw(monkeypatch):
    """A pool of one draw of each kind: what is not retired comes again."""
    monkeypatch.setattr(sessions, "POOL", dict.fromkeys(sessions.POOL, 1))


def _asked(source, reference=REFERENCE, **options):
    return Evaluation(problem=Problem(source=reference, name="scale"), source=source, options=Options(**options))


def _judged(referee, source, builds=None, **options):
    return referee.evaluate("id", _asked(source, **options), builds or {}, lambda _: None)


def _samples(report):
    return [s for r in report.correctness.sets for s in r.worst]


def test_a_right_kernel_is_correct_and_needed_in_every_way_of_disabling_it(referee):
    stages = []

    report = referee.evaluate("mine", _asked(TRITON), {}, stages.append)

    assert (report.id, report.status) == ("mine", Status.CORRECT), report.summary
    assert stages == [Stage.STATIC, Stage.CHECKING]
    assert [r.name for r in report.correctness.sets] == ["own", "own_2", "own_3", "flipped", "flipped_small"]
    assert set(report.kernels.ablation) == {"zeros", "ones", "raise", "part"}
    assert set(report.kernels.ablation.values()) <= {"wrong", "error"}
    assert report.kernels.custom_launched == ("kernel",)


def test_an_honest_kernel_that_leaves_a_maximum_to_torch_is_needed(referee):
    reference, source = (text.replace(old, new) for text, old, new in (
        (REFERENCE, "x * self.weight + 1", "(x * self.weight + 1).amax()"), (TRITON, "return out", "return out.amax()")
    ))  # fmt: skip

    report = referee.evaluate("id", _asked(source, reference), {}, print)

    assert report.status is Status.CORRECT, report.summary


@pytest.mark.parametrize(
    ("raising", "modes"),
    [
        ("if not out.any(): raise ValueError('nothing in it')", {"zeros"}),
        ("if out.abs().amax() > 2 + 2 * (x * self.weight).abs().amax(): raise ValueError('too large')", {"part"}),
    ],
)
def test_an_honest_kernel_may_raise_over_garbage(referee, raising, modes):
    report = _judged(referee, TRITON.replace("        return out", f"        {raising}\n        return out"))

    assert report.status is Status.CORRECT, report.summary
    assert {mode for mode, answer in report.kernels.ablation.items() if answer == "error"} == {*modes, "raise"}


@pytest.mark.parametrize(("name", "value"), [("all_zero", "0.0"), ("constant", "1.0")])
def test_a_problem_without_work_can_be_solved_by_a_kernel_but_not_by_torch(referee, name, value):
    """The audit warns of it; to disable a kernel in a way that leaves the right answer shows nothing."""
    reference = (DEGENERATE / f"{name}.py").read_text()

    honest, torch_only = (
        referee.evaluate("id", _asked(source, reference), {}, print)
        for source in (FILLING.replace("VALUE", value), reference.replace("class Model", "class ModelNew"))
    )

    assert honest.status is Status.CORRECT, honest.summary
    assert torch_only.status is Status.REWARD_HACK


def test_a_champion_that_asks_for_another_build_is_no_champion(referee, built, monkeypatch):
    """Its second check cannot be skipped by asking for what is never built."""
    request, result = built
    seeds = iter(range(1, 1000))
    monkeypatch.setattr(sessions.Session, "draw_seed", lambda _: next(seeds))
    other = "if torch.initial_seed() != 1: load_inline(name='other', cpp_sources=[SOURCE], functions=['run'])"
    source = BUILT.replace("super().__init__()", f"super().__init__()\n        {other}")
    asked = _asked(source, REFERENCE + "\n# met here only\n", level=Level.CHAMPION)

    report = referee.evaluate("id", asked, {request["key"]: result}, print)

    assert report.status is Status.RUNTIME_ERROR
    assert "other builds" in report.summary


def test_an_interpreted_kernel_is_never_timed(referee):
    report = _judged(referee, TRITON, level=Level.FULL)

    assert report.status is Status.CORRECT
    assert report.environment.emulated
    assert report.timing is None


def test_a_wrong_kernel_is_incorrect_with_samples_of_what_it_gave(referee):
    report = _judged(referee, WRONG)

    samples = _samples(report)
    assert report.status is Status.INCORRECT
    assert report.correctness.sets[-1].pattern == "all"
    assert 1 <= len(samples) <= 8
    assert [float(s.got) - float(s.want) for s in samples] == pytest.approx([1] * len(samples), abs=1e-5)


def test_a_full_look_times_against_each_baseline_that_was_asked_for(referee):
    stages = []
    optional = {"custom_kernel": CustomKernel.OPTIONAL, "level": Level.FULL}

    report = referee.evaluate("id", _asked(TORCH, **optional), {}, stages.append)

    assert stages == [Stage.STATIC, Stage.CHECKING, Stage.TIMING]
    assert report.timing.baselines.keys() == {"eager"}
    assert report.timing.score_us > 0
    assert report.timing.speedup.pairs >= 10


def test_a_source_that_is_no_python_is_a_compile_error_with_its_line(referee):
    report = _judged(referee, TRITON.replace("import triton\n", "import triton as\n"))

    assert report.status is Status.COMPILE_ERROR
    assert [e.line for e in report.build.errors] == [2]


def test_a_problem_that_is_unusable_is_nobodys_verdict(referee):
    with pytest.raises(ProblemError) as caught:
        referee.evaluate("id", _asked(TRITON, REFERENCE.replace("torch.randn(32)", "torch.rand_n(32)")), {}, print)

    assert caught.value.line == 7


@pytest.fixture(scope="module")
def built(referee, tmp_path_factory):
    """What the source asked for, and the same built."""
    wanted = _judged(referee, BUILT)
    assert isinstance(wanted, BuildWanted)
    builder = Builder(tmp_path_factory.mktemp("cache"), 1)
    found = asyncio.run(builder.build(wanted.request))
    return wanted.request, found.as_message()


def test_a_build_is_asked_for_and_the_evaluation_goes_on_with_its_result(referee, built):
    request, result = built

    report = _judged(referee, BUILT, {request["key"]: result})

    assert report.status is Status.CORRECT, report.summary
    assert report.build.ok
    assert report.kernels.custom_launched == ("run",)


def test_a_build_that_failed_is_the_verdict_without_a_run(referee):
    error = {"file": "cpp_sources[0]", "line": 3, "message": "'total' was not declared"}

    report = _judged(referee, BUILT, {"any": {"ok": False, "seconds": 2.5, "errors": [error]}})

    assert report.status is Status.COMPILE_ERROR
    assert "cpp_sources[0]:3: 'total' was not declared" in report.summary
    assert report.build.seconds == 2.5


def test_a_zygote_that_was_killed_is_started_again(referee):
    _judged(referee, TRITON)
    zygote = referee._zygote._process.pid
    os.kill(zygote, signal.SIGKILL)
    os.waitid(os.P_PID, zygote, os.WEXITED | os.WNOWAIT)

    report = _judged(referee, TRITON)

    assert report.status is Status.CORRECT
    assert referee._zygote._process.pid != zygote


@pytest.mark.usefixtures("one_draw")
def test_a_draw_of_which_samples_were_shown_is_never_used_again(referee):
    renamed = REFERENCE + "\n# a problem that this referee has not met\n"

    shown = [_samples(referee.evaluate("id", _asked(WRONG, renamed), {}, print)) for _ in range(3)]

    assert all(shown)
    wants = [tuple(s.want for s in samples) for samples in shown]
    assert len(set(wants)) == 3


@pytest.mark.usefixtures("one_draw")
def test_a_draw_of_which_nothing_was_shown_is_kept(referee):
    renamed = REFERENCE + "\n# another one\n"
    asked = _asked(TRITON, renamed)
    referee.evaluate("id", asked, {}, print)
    kept = referee._session(asked).draw("own")

    referee.evaluate("id", asked, {}, print)

    assert referee._session(asked).draw("own") is kept


def test_a_fixed_seed_repeats_the_draws(referee):
    first, again, other = (_samples(_judged(referee, WRONG, seed=seed)) for seed in (5, 5, 6))

    assert first == again
    assert first != other


@pytest.mark.parametrize("source", [TRITON, WRONG], ids=["correct", "incorrect"])
def test_a_report_holds_no_seed(referee, monkeypatch, source):
    drawn, plain = [], sessions.Session.draw_seed

    def noted(self):
        drawn.append(plain(self))
        return drawn[-1]

    monkeypatch.setattr(sessions.Session, "draw_seed", noted)
    fixed = 918273645546372

    report = _judged(referee, source, seed=fixed, level=Level.CHAMPION)

    text = report.model_dump_json()
    assert len(drawn) >= 2
    assert [s for s in (fixed, *drawn) if str(s) in text or f"{s:x}" in text] == []
