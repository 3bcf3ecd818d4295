"""The baseline's process, as it really runs: its answers, whose fault an error is, and how it stands still and ends."""

import os
import signal
from pathlib import Path

import pytest
import torch

from kernelverify.host import problem
from kernelverify.host.baseline import COMPILE, Baseline
from kernelverify.host.memory import Region
from kernelverify.resources import HostError
from kernelverify_api.request import Problem

pytestmark = pytest.mark.needs("linux")

SOURCE = """\
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x):
        y = self.linear(x)
        return y, y.sum()


def get_inputs():
    return [torch.randn(16, 8)]


def by_hand(x):
    return torch.full((16, 4), 7.0), x.sum()


def in_place(x):
    return x.relu_()[:, :4] * 2, x.sum()


def broken(x):
    y = x + 1
    raise RuntimeError("no such backend")


def get_baselines():
    return {"by_hand": by_hand, "in_place": in_place, "broken": broken, "short": lambda x: x.sum()}
"""
PROBLEM = Problem(source=SOURCE, name="tiny")
SEED = 11


@pytest.fixture(scope="module")
def running():
    """One process for all that only call it; the compiled baseline compiles at its first call."""
    with Baseline(threads=1) as base:
        base.start(PROBLEM, SEED, ["eager", "by_hand", "in_place", "broken", "short", COMPILE])
        yield base


@pytest.fixture
def own():
    """A process that a test may harm."""
    with Baseline(threads=1) as base:
        base.start(PROBLEM, SEED, ["eager"])
        yield base


def _expected(x):
    with torch.no_grad():
        return problem.load(PROBLEM).make_model(SEED)(x)


def _called(base, name, x):
    with Region.inputs([x]) as inputs, Region.outputs(_expected(x)) as outputs:
        base.open(0, inputs, outputs)
        return base.run(0, name)[1]


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_eager_answers_what_torch_answers_under_the_models_seed(running):
    x = torch.randn(16, 8)

    product, total = _called(running, "eager", x)

    assert torch.equal(product, _expected(x)[0])
    assert torch.equal(total, _expected(x)[1])


def test_inputs_that_change_in_place_are_seen_by_the_next_call(running):
    first, second = torch.randn(16, 8), torch.randn(16, 8)
    with Region.inputs([first]) as inputs, Region.outputs(_expected(first)) as outputs:
        running.open(0, inputs, outputs)
        running.run(0, "eager")
        inputs.write([second])

        _, copies = running.run(0, "eager")

    assert torch.equal(copies[0], _expected(second)[0])


def test_a_baseline_of_the_problems_own_is_called_by_its_name(running):
    x = torch.randn(16, 8)

    constant, total = _called(running, "by_hand", x)

    assert constant.unique().tolist() == [7]
    assert torch.equal(total, x.sum())


def test_a_baseline_that_writes_into_its_inputs_gets_copies_of_them(running):
    """The first call writes what stood there; so that it writes at all must be seen."""
    positive, mixed = torch.rand(16, 8), torch.randn(16, 8)
    with Region.inputs([positive]) as inputs, Region.outputs(_expected(positive)) as outputs:
        running.open(0, inputs, outputs)
        running.run(0, "in_place")
        inputs.write([mixed])

        _, copies = running.run(0, "in_place")
        (left,) = inputs.read_private()

    assert torch.equal(copies[0], mixed.relu()[:, :4] * 2)
    assert torch.equal(left, mixed)


@pytest.mark.timeout(300)
def test_compile_answers_as_eager_does(running):
    x = torch.randn(16, 8)

    product, total = _called(running, COMPILE, x)

    torch.testing.assert_close(product, _expected(x)[0])
    torch.testing.assert_close(total, _expected(x)[1])


def test_a_baseline_that_raises_is_the_problems_fault_with_its_line(running):
    with pytest.raises(problem.ProblemError) as caught:
        _called(running, "broken", torch.randn(16, 8))

    assert "baseline 'broken' raised RuntimeError: no such backend" in caught.value.message
    assert caught.value.line == SOURCE.splitlines().index('    raise RuntimeError("no such backend")') + 1


def test_a_baseline_that_returns_too_little_is_the_problems_fault_and_the_process_goes_on(running):
    x = torch.randn(16, 8)

    with pytest.raises(
        problem.ProblemError, match=r"'short' returns float32\(\); Model.forward returns float32\(16, 4\), float32\(\)"
    ):
        _called(running, "short", x)

    assert torch.equal(_called(running, "eager", x)[0], _expected(x)[0])


def test_an_unknown_name_is_refused_with_those_that_exist():
    with Baseline(threads=1) as base, pytest.raises(problem.ProblemError, match="'flash'") as caught:
        base.start(PROBLEM, SEED, ["eager", "flash"])

    assert "eager, by_hand, in_place, broken, short, compile" in caught.value.message


def test_a_model_that_cannot_be_made_is_the_problems_fault_with_its_line():
    source = SOURCE.replace("torch.nn.Linear(8, 4)", "torch.nn.Linear(8)")

    with Baseline(threads=1) as base, pytest.raises(problem.ProblemError, match="TypeError") as caught:
        base.start(Problem(source=source), SEED, ["eager"])

    assert caught.value.line == 7


@pytest.mark.timeout(90)
def test_a_paused_one_stands_still_and_the_next_call_wakes_it(running):
    x = torch.randn(16, 8)
    with Region.inputs([x]) as inputs, Region.outputs(_expected(x)) as outputs:
        running.open(0, inputs, outputs)

        running.pause()
        os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
        stopped = _state(running.pid)
        _, copies = running.run(0, "eager")

    assert stopped == "T"
    assert torch.equal(copies[0], _expected(x)[0])


def test_a_killed_one_is_infrastructure_and_closes_clean(own):
    x, pid = torch.randn(16, 8), own.pid
    with Region.inputs([x]) as inputs, Region.outputs(_expected(x)) as outputs:
        own.open(0, inputs, outputs)
        own.run(0, "eager")
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        with pytest.raises(HostError, match="the baseline's process failed"):
            own.run(0, "eager")
    own.close()

    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(HostError, match="not running"):
        own.open(1, inputs, outputs)


def test_a_paused_one_can_be_closed(own):
    pid = own.pid
    own.pause()

    own.close()

    assert not Path(f"/proc/{pid}").exists()
