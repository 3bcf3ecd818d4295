"""What a custom launch does in each mode of ablation: built functions here, Triton's in a real guest process."""

from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernelverify.guest import ablation
from kernelverify.guest.ablation import Recorder

pytestmark = pytest.mark.needs("linux")

TRITON = """\
import threading
import torch
import triton
import triton.language as tl


@triton.jit
def doubled(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, 2 * tl.load(x_ptr + at))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.full_like(x, 7) if {kept} else torch.empty_like(x)
        launch = lambda: doubled[(1,)](x, out, x.numel())
        {launch}
        return out
"""


def _double_into(x, out):
    """Stands for a built function that writes into what it is given."""
    out.copy_(2 * x)


def _twice(x):
    return 2 * x


# ---- built functions ----


def test_without_a_mode_a_function_does_its_work_and_is_counted():
    recorder, out = Recorder(), torch.empty(3)
    double, twice = recorder.wrap("double", _double_into), recorder.wrap("twice", _twice)

    double(torch.ones(3), out)
    double(torch.ones(3), out)
    result = twice(torch.ones(3))

    assert (out.tolist(), result.tolist()) == ([2, 2, 2], [2, 2, 2])
    assert recorder.launched == ("double", "twice")
    assert recorder.counts["double"] == 2


@pytest.mark.parametrize(("mode", "value"), [("zeros", 0), ("ones", 1)])
def test_filled_results_are_all_that_is_seen_of_a_function(mode, value):
    recorder, given = Recorder(mode), torch.full((3,), 5.0)

    def work(x):
        x.mul_(9)
        return x.sum(), {"list": [x], "count": 4, "mean": 4.5, "flag": not value, "name": "x"}

    total, rest = recorder.wrap("work", work)(given)

    assert given.tolist() == [5, 5, 5]
    assert total.item() == value
    assert rest["list"][0].tolist() == [value] * 3
    assert (rest["count"], rest["mean"], rest["flag"], rest["name"]) == (value, value, bool(value), "x")
    assert recorder.launched == ("work",)


def test_a_filled_function_gets_copies_with_the_strides_that_it_may_insist_on():
    seen = []
    base = torch.arange(12.0)
    views = [base.view(3, 4).T, base.as_strided((4, 4), (2, 1), 1), base[2:5]]

    Recorder("zeros").wrap("look", lambda *tensors: seen.extend(tensors))(*views)

    assert [(t.stride(), t.storage_offset()) for t in seen] == [(t.stride(), t.storage_offset()) for t in views]
    assert all(torch.equal(a, b) for a, b in zip(seen, views, strict=True))
    assert base.data_ptr() not in {t.untyped_storage().data_ptr() for t in seen}


@pytest.mark.parametrize("mode", ["zeros", "ones", "part"])
@pytest.mark.parametrize("arguments", ["address", "no tensor"])
def test_a_function_whose_work_no_copy_could_undo_is_not_called(mode, arguments):
    x, called = torch.ones(3), []
    given = (x.data_ptr(), x) if arguments == "address" else (3,)

    result = Recorder(mode).wrap("work", lambda *_: called.append(1) or 5)(*given)

    assert result is None
    assert called == []


def test_in_mode_raise_a_function_raises_and_does_nothing():
    recorder, out = Recorder("raise"), torch.zeros(3)

    with pytest.raises(ablation.KernelDisabledError, match="custom kernel disabled"):
        recorder.wrap("double", _double_into)(torch.ones(3), out)

    assert out.tolist() == [0, 0, 0]
    assert recorder.launched == ("double",)


def test_a_part_of_what_a_function_wrote_is_spoilt():
    x, out = torch.ones(100, 64), torch.full((100, 64), 7.0)

    Recorder("part").wrap("double", _double_into)(x, out)

    assert (out == 2).sum() == 6400 - 101
    assert torch.equal(x, torch.ones(100, 64))


def test_a_part_of_what_a_function_returned_is_spoilt():
    result = Recorder("part").wrap("twice", _twice)(torch.ones(6400))

    assert (result != 2).sum() == 101


def test_of_little_everything_is_spoilt():
    out = torch.full((255,), 7.0)

    Recorder("part").wrap("double", _double_into)(torch.ones(255), out)

    assert (out == 2).sum() == 0


def test_only_what_changed_can_be_spoilt_and_nan_that_stays_did_not_change():
    out = torch.full((6400,), torch.nan)

    def fill_tail(out):
        out[-640:] = 2

    Recorder("part").wrap("fill", fill_tail)(out)

    assert out[:-640].isnan().all()
    assert (out[-640:] != 2).sum() == 640 // 64 + 1


@pytest.mark.parametrize("count", [1, 256, 6400])
@pytest.mark.parametrize("reduce", [torch.amax, torch.amin], ids=["maximum", "minimum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int32], ids=str)
def test_what_torch_reduces_a_spoilt_result_to_is_wrong(count, reduce, dtype):
    """An honest kernel may leave the last step to torch; a maximum kept its value in 63 of 64 cases."""
    x = torch.arange(count).flip(0).remainder(100).sub(50).to(dtype)

    result = Recorder("part").wrap("twice", _twice)(x.clone())

    assert reduce(result) != reduce(_twice(x))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.complex64], ids=str)
def test_every_kind_of_number_can_be_spoilt(dtype):
    result = Recorder("part").wrap("copy", torch.clone)(torch.ones(640, dtype=dtype))

    assert (result != 1).sum() == 11


def test_a_spoilt_result_that_counts_for_nothing_spoils_nothing():
    """As in a decoy's `answer + 0 * result`: it must stay right."""
    result = Recorder("part").wrap("twice", _twice)(torch.full((6400,), torch.finfo(torch.float32).max / 2))

    assert torch.equal(0 * result + 1, torch.ones(6400))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_no_copy_of_an_answer_is_left_in_memory_that_was_freed(dtype):
    """The next allocation may hold it, and a launch that writes the same there would not be seen to change anything."""

    class Kept(TorchDispatchMode):
        made: ClassVar[list[torch.Tensor]] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.made += [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
            return result

    answer = torch.arange(1, 6401).to(dtype)
    out = torch.zeros(6400, dtype=dtype)
    spoil = Recorder("part").wrap("write", lambda out: [out.copy_(answer)].clear())

    with Kept() as kept:
        spoil(out)

    copies = [each for each in kept.made if each.numel() >= 6400 and each.data_ptr() not in {out.data_ptr(), 0}]
    assert copies
    assert [each for each in copies if each.dtype == dtype and (each == answer).any()] == []


def test_which_part_is_spoilt_cannot_be_known_from_torchs_seed():
    spoilt = []
    for _ in range(2):
        torch.manual_seed(0)
        spoilt.append(Recorder("part").wrap("twice", _twice)(torch.ones(6400)) != 2)

    assert not torch.equal(*spoilt)


def test_an_idle_call_among_others_does_nothing_and_leaves_the_mode_as_it_was():
    recorder, out = Recorder(), torch.zeros(3)
    double = recorder.wrap("double", _double_into)

    with recorder.idle(wanted=True):
        double(torch.ones(3), out)
    idle = out.tolist()
    with recorder.idle(wanted=False):
        double(torch.ones(3), out)

    assert idle == [0, 0, 0]
    assert out.tolist() == [2, 2, 2]


def test_the_largest_tensor_is_noted_where_that_is_wanted():
    recorder = Recorder()
    double = recorder.wrap("double", _double_into)

    double(torch.ones(9), torch.ones(9))
    unnoted = recorder.largest
    recorder.noting = True
    double(torch.ones(5), torch.ones(5))

    assert (unnoted, recorder.largest) == (0, 5)


def test_methods_of_a_built_class_are_launches_but_making_one_is_not():
    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return self.by * x

        def apply(self, x):
            return self.by * x

    recorder = Recorder("zeros")
    ablation.wrap_class(recorder, Scale)

    scale = Scale(3)

    assert scale.by == 3
    assert scale(torch.ones(2)).tolist() == [0, 0]
    assert scale.apply(torch.ones(2)).tolist() == [0, 0]
    assert recorder.launched == ("Scale.__call__", "Scale.apply")


def test_an_operator_of_a_built_library_is_a_launch_by_its_packet_and_by_its_overload():
    with torch.library._scoped_library("kernelverify_ablation", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", _twice, "CPU")
        recorder = Recorder("ones")
        ablation.wrap_operators(recorder, ["kernelverify_ablation::twice.default"])
        operator = torch.ops.kernelverify_ablation.twice

        results = [operator(torch.ones(2)).tolist(), operator.default(torch.ones(2)).tolist()]
        schema = str(operator.default._schema)

    assert results == [[1, 1], [1, 1]]
    assert recorder.counts == {"kernelverify_ablation::twice": 2}
    assert "twice(Tensor x) -> Tensor" in schema


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        ("empty", ([3],)),
        ("empty_strided", ([3], [2])),
        ("zeros", ([3],)),
        *((name, (torch.full((3,), 5.0),)) for name in ("empty_like", "zeros_like")),
        *((name, (torch.full((3,), 5.0), [3])) for name in ("new_empty", "new_zeros")),
    ],
)
@pytest.mark.parametrize("space", [torch, torch.ops.aten], ids=["torch", "aten"])
def test_places_for_an_answer_are_filled(space, operator, arguments):
    make = getattr(space, operator, None) or getattr(torch.Tensor, operator)

    with ablation.FilledAllocations(1):
        place = make(*arguments)

    assert place.tolist() == [1, 1, 1]


def test_values_that_are_part_of_an_algorithm_stay():
    with ablation.FilledAllocations(1):
        values = [torch.full((2,), 5.0), torch.ones(2) * 3, torch.tensor([0.0, 2.0]), torch.arange(2)]

    assert [v.tolist() for v in values] == [[5, 5], [3, 3], [0, 2], [0, 1]]


# ---- Triton launches ----


@pytest.fixture
def launched(guest):
    """The answer of a kernel that doubles ones, into fresh memory or into sevens, launched here or on a thread."""

    def call(count=1024, *, kept=False, threaded=False, **job):
        thread = "thread = threading.Thread(target=launch); thread.start(); thread.join()"
        source = TRITON.format(kept=kept, launch=thread if threaded else "launch()")
        x = torch.ones(count)
        return guest(source, [x], x, **job)

    return call


@pytest.mark.parametrize(
    ("mode", "fresh", "kept"), [(None, 2, 2), ("zeros", 0, 7), ("ones", 1, 7)], ids=["none", "zeros", "ones"]
)
def test_a_disabled_launch_leaves_what_memory_held(launched, mode, fresh, kept):
    assert launched(ablation=mode).outputs[0].unique().tolist() == [fresh]
    assert launched(ablation=mode, kept=True).outputs[0].unique().tolist() == [kept]


@pytest.mark.parametrize("threaded", [False, True], ids=["here", "on a thread"])
def test_a_launch_is_reported_wherever_it_happens(launched, threaded):
    ran = launched(threaded=threaded, count_ops_above=0)

    assert ran.kernels == ("doubled",)
    assert ran.largest_launch == 1024


def test_a_launch_on_a_thread_is_disabled_too(launched):
    assert launched(ablation="zeros", threaded=True).outputs[0].unique().tolist() == [0]


def test_a_raising_launch_says_so_with_the_candidates_line(launched):
    crash = launched(ablation="raise")

    assert (crash.type, crash.message) == ("KernelDisabledError", "custom kernel disabled")
    assert "doubled[" in TRITON.splitlines()[crash.line - 1]


def test_a_launch_of_which_a_part_is_spoilt_keeps_the_rest(launched):
    answer = launched(ablation="part", kept=True).outputs[0]

    assert (answer == 2).sum() == 1024 - 17
    assert (answer[answer != 2].abs() > 7).all()


def test_of_a_small_launch_all_is_spoilt(launched):
    assert (launched(128, ablation="part", kept=True).outputs[0] == 2).sum() == 0


def test_an_idle_call_launches_nothing(launched):
    assert launched(kept=True, idle=True).outputs[0].unique().tolist() == [7]
