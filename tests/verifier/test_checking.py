"""What ablation makes of errors: an honest kernel raises over garbage each time, one that raises by chance does not."""

from contextlib import contextmanager
from time import monotonic

import pytest

from kernelverify.host import checking, inputs
from kernelverify.host import session as sessions
from kernelverify.host.candidate import BuildWanted, Crash, Job, Loaded, Ran
from kernelverify.host.checking import Deadline
from kernelverify.host.session import Session
from kernelverify_api.report import SetResult
from kernelverify_api.request import Problem

pytestmark = pytest.mark.needs("linux")

REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x + 1


def get_inputs():
    return [torch.randn(100)]
"""
CRASH = Crash("exception", "forward", "ValueError", "by chance")
WISH = BuildWanted({"key": "other"})
ON = "with its kernels"


class Scripted:
    """Stands for zygote and candidate: what each process does is written, by its mode."""

    def __init__(self, draw, script):
        self._draw, self._script, self.started = draw, script, []

    @contextmanager
    def spawn(self, job):
        mode = job.ablation or ON
        self.started.append(mode)
        does = self._script[mode]
        self._does = does.pop(0) if isinstance(does, list) else does
        yield self

    def load(self, *_):
        return Loaded(())

    def open(self, *_):
        return 0

    def run(self, *_):
        if not isinstance(self._does, str):
            return self._does
        meta = {"type": "torch.Tensor", "shape": [100], "dtype": "float32", "device": "cpu", "layout": "strided"}
        return Ran(
            elapsed_s=0.1,
            outputs=[self._draw.eager[0] + (self._does == "wrong")],
            skeleton=self._draw.skeleton,
            metas=[{**meta, "stride": [1]}],
        )


@pytest.fixture
def ablated(monkeypatch):
    """A function from a script to what ablation finds, and the processes that it took."""
    monkeypatch.setattr(sessions, "POOL", dict.fromkeys(sessions.POOL, 1))
    monkeypatch.setattr(checking, "_draws", lambda session: 2 * [session.draw("own")])
    session = Session(Problem(source=REFERENCE), seed=1)

    def call(**script):
        script = {**dict.fromkeys(checking.MODES, "wrong"), ON: "right", "raise": CRASH, **script}
        process = Scripted(session.draw("own"), script)
        return checking.ablate(process, Job(source=""), session, Deadline(monotonic() + 60), 0.1), process.started

    return call


def test_no_two_calls_of_a_check_have_the_same_inputs():
    session = Session(Problem(source=REFERENCE))

    for _ in range(40):  # the pool is full after three, and then drawn from
        draws = [draw for _, draw in session.draws(inputs.GATES)]
        assert len({id(draw) for draw in draws}) == len(inputs.GATES)


def test_errors_of_disabled_kernels_are_all_that_raising_launches_need(ablated):
    found, started = ablated()

    assert found.answers == {"zeros": "wrong", "ones": "wrong", "raise": "error", "part": "wrong"}
    assert started == list(checking.MODES)


@pytest.mark.parametrize("trouble", [CRASH, WISH], ids=["crash", "build"])
def test_an_error_that_comes_again_counts(ablated, trouble):
    found, started = ablated(zeros=trouble)

    assert found.answers["zeros"] == "error"
    assert found.unsteady is None
    assert started[:4] == ["zeros", ON, "zeros", "ones"]


@pytest.mark.parametrize("trouble", [CRASH, WISH], ids=["crash", "build"])
def test_an_error_that_does_not_come_again_hides_no_right_answer(ablated, trouble):
    found, _ = ablated(part=[trouble, "right"])

    assert found.answers["part"] == "right"


@pytest.mark.parametrize("trouble", [CRASH, WISH, "wrong"], ids=["crash", "build", "wrong"])
def test_what_fails_with_its_kernels_on_fails_by_chance(ablated, trouble):
    found, started = ablated(ones=CRASH, **{ON: trouble})

    assert isinstance(found.unsteady, SetResult if trouble == "wrong" else Crash)
    assert started == ["zeros", "ones", ON]
