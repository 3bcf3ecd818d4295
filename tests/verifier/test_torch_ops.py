"""What is counted as left to torch: operators that compute on large tensors, on whichever thread."""

import _thread
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kernelverify.guest import torch_ops

ABOVE = 100

COMPUTING = {
    "aten.add": lambda x: x + 1,
    "aten.mm": lambda x: x @ x.T,
    "aten._softmax": lambda x: torch.softmax(x, -1),
    "aten.relu_": lambda x: x.clone().relu_(),
    "aten.exp": lambda x: torch.exp(x, out=torch.empty(16, 16)),
    "aten.addmm": lambda x: torch.nn.functional.linear(x, x, x[0]),
    "aten.cat": lambda x: torch.cat([x, x]),
    "aten.where": lambda x: torch.where(x.bool(), x, 0),
    "aten.lt": lambda x: x < 0,
    "aten.sort": lambda x: x.sort(),
    "aten.index": lambda x: x[torch.tensor([0, 3])],
    "aten.uniform_": lambda x: torch.empty_like(x).uniform_(),
}
FREE = {
    "view": lambda x: x.view(-1, 8),
    "slice": lambda x: x[1:, ::2],
    "transpose": lambda x: x.T,
    "reshape that copies": lambda x: x.T.reshape(-1),
    "expand": lambda x: x[:1].expand(64, 16),
    "split": lambda x: x.split(4),
    "unsqueeze in place": lambda x: x.clone().unsqueeze_(0),
    "detach": lambda x: x.detach(),
    "empty": lambda _: torch.empty(16, 16),
    "empty_like": torch.empty_like,
    "new_empty": lambda x: x.new_empty(16, 16),
    "zeros": lambda _: torch.zeros(16, 16),
    "full": lambda _: torch.full((16, 16), 3.0),
    "fill": lambda x: torch.empty_like(x).fill_(2),
    "clone": lambda x: x.clone(),
    "copy": lambda x: torch.empty_like(x).copy_(x),
    "cast": lambda x: x.half().double(),
    "contiguous": lambda x: x.T.contiguous(),
    "a question": lambda x: (x.numel(), x.stride(), x.is_contiguous(), x[0, 0].item()),
    "small": lambda x: x[:5] * 2,
}


@pytest.mark.parametrize("name", COMPUTING)
def test_what_computes_on_a_large_tensor_is_counted_by_name(name):
    x = torch.randn(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        COMPUTING[name](x)

    assert tally.counts[name] == 1


@pytest.mark.parametrize("name", FREE)
def test_what_only_moves_or_places_data_is_free(name):
    x = torch.randn(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        FREE[name](x)

    assert not tally.counts


@pytest.mark.parametrize(("elements", "calls"), [(100, 0), (101, 1)])
def test_large_means_more_elements_than_the_threshold(elements, calls):
    with torch_ops.counter(100) as tally:
        torch.ones(elements).neg()

    assert tally.counts["aten.neg"] == calls


def test_a_large_result_of_small_tensors_counts():
    with torch_ops.counter(ABOVE) as tally:
        torch.ones(16, 1) * torch.ones(1, 16)

    assert tally.counts == {"aten.mul": 1}


def test_a_small_result_of_a_large_tensor_counts():
    with torch_ops.counter(ABOVE) as tally:
        torch.ones(16, 16).sum()

    assert tally.counts == {"aten.sum": 1}


def test_every_call_counts():
    x = torch.randn(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        for _ in range(3):
            x = x.exp()

    assert tally.counts == {"aten.exp": 3}


def test_what_was_cleared_is_forgotten():
    x = torch.randn(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        x.exp()
        tally.clear()
        x.sin()

    assert tally.counts == {"aten.sin": 1}


def test_outside_its_block_nothing_is_counted():
    x = torch.randn(16, 16).exp()

    with torch_ops.counter(ABOVE) as tally:
        pass
    x.exp()
    _on_thread(x.exp)

    assert not tally.counts


@pytest.fixture
def own():
    """Defines an operator of the candidate's own: `own(schema, function, key)` gives it."""
    with torch.library._scoped_library("kernelverify_test", "DEF") as library:

        def define(schema, function, key="CPU"):
            library.define(schema)
            library.impl(schema.partition("(")[0], function, key)
            return getattr(torch.ops.kernelverify_test, schema.partition("(")[0])

        yield define


@pytest.mark.parametrize("key", ["CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd"])
def test_an_operator_of_the_candidates_own_is_free_but_not_what_it_asks_of_torch(own, key):
    doubled = own("doubled(Tensor x) -> Tensor", lambda x: x.clone().mul_(2), key)
    x = torch.ones(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        result = doubled(x)

    assert result.unique().tolist() == [2]
    assert tally.counts == {"aten.mul_": 1}


def test_an_operator_that_hands_its_work_to_another_one_hides_nothing(own):
    inner = own("inner(Tensor[] xs) -> Tensor", lambda xs: xs[0].exp())
    outer = own("outer(Tensor x) -> Tensor", lambda x: inner([x]))

    with torch_ops.counter(ABOVE) as tally:
        outer(torch.ones(16, 16))

    assert tally.counts == {"aten.exp": 1}


def test_an_operator_that_finds_its_tensors_by_itself_hides_nothing(own):
    x = torch.ones(16, 16)
    made = own("made(int n) -> Tensor", lambda n: x * n, "CompositeExplicitAutograd")

    with torch_ops.counter(ABOVE) as tally:
        made(3)

    assert tally.counts == {"aten.mul": 1}


def test_an_operator_that_writes_into_what_it_is_given_still_does(own):
    def fill(weight, out):
        out.copy_(weight)

    scale = own("fill(Tensor weight, Tensor(a!) out) -> ()", fill)
    weight, out = torch.nn.Parameter(torch.ones(16, 16)), torch.empty(16, 16)

    with torch.no_grad(), torch_ops.counter(ABOVE) as tally:
        scale(weight, out)

    assert torch.equal(out, weight)
    assert not tally.counts


def test_operators_of_torchs_other_libraries_count_too():
    x = torch.ones(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        torch.ops.prims.mul(x, x)
        torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], "")

    assert tally.counts.keys() == {"prims.mul", "aten.mul", "mkldnn._linear_pointwise"}


def _on_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _on_subclass(work):
    class Own(threading.Thread):
        def run(self):
            work()

    thread = Own()
    thread.start()
    thread.join()


def _on_pool(work):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def _on_primitive(work):
    done = _thread.allocate_lock()
    done.acquire()

    def run():
        work()
        done.release()

    _thread.start_new_thread(run, ())
    done.acquire()


@pytest.mark.parametrize("start", [_on_thread, _on_subclass, _on_pool, _on_primitive])
def test_operators_on_other_threads_are_seen(start):
    x = torch.randn(16, 16)

    with torch_ops.counter(ABOVE) as tally:
        start(x.exp)

    assert tally.counts == {"aten.exp": 1}


def test_a_thread_that_outlives_the_block_is_seen_to_its_end():
    x, go, started = torch.randn(16, 16), threading.Event(), threading.Event()

    def wait_and_work():
        started.set()
        go.wait()
        x.exp()

    thread = threading.Thread(target=wait_and_work)
    with torch_ops.counter(ABOVE) as tally:
        thread.start()
        started.wait()
    go.set()
    thread.join()

    assert tally.counts == {"aten.exp": 1}


def test_gradients_are_computed_in_sight():
    x = torch.randn(16, 16, requires_grad=True)

    with torch_ops.counter(ABOVE) as tally:
        x.exp().sum().backward()

    assert tally.counts["aten.mul"] == 1
