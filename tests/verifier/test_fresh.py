"""Inputs of timed calls: nothing is gained by keeping answers, and low precision shows."""

import pytest
import torch

from kernelverify.host import correctness, fresh, inputs
from kernelverify.host.session import Session
from kernelverify_api.request import Problem

PRODUCT = """
import time, torch

class Model(torch.nn.Module):
    def forward(self, a, b):
        return {expression}

def get_inputs():
    time.sleep({seconds})
    return [{drawn}]

def get_init_inputs():
    return []
"""
ROOTS = "torch.sqrt(a) @ torch.sqrt(b)"
"""Not to be had of other signs."""
DRAWN = "torch.rand(32, 1024), torch.rand(1024, 16)"
WHOLE = "torch.randint(2**20, (32, 64)), torch.randint(2**20, (64, 16))"
"""Without any sign that may change."""


def generator(seconds: float = 0, expression: str = "a @ b", drawn: str = DRAWN) -> tuple[fresh.Generator, Session]:
    session = Session(Problem(source=PRODUCT.format(seconds=seconds, expression=expression, drawn=drawn)))
    return fresh.Generator(session), session


@pytest.mark.parametrize(("expression", "drawn"), [("a @ b", DRAWN), (ROOTS, DRAWN), ("a @ b", WHOLE)])
@pytest.mark.parametrize("seconds", [0, 2 * fresh.CHEAP_S])
def test_no_input_of_a_timed_call_comes_twice(seconds: float, expression: str, drawn: str):
    made, _ = generator(seconds, expression, drawn)

    seen = [tensor.numpy().tobytes() for _ in range(20) for tensor in made.fresh().inputs]

    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("seconds", "least"), [(0, 10), (2 * fresh.CHEAP_S, 40)])
def test_most_have_other_signs_where_a_problem_can_have_them(seconds: float, least: int):
    made, _ = generator(seconds)

    flipped = [given for given in (made.fresh() for _ in range(40)) if bool((given.inputs[0] < 0).any())]

    assert least <= len(flipped) <= 40
    assert {given.like.gate for given in flipped} == {inputs.FLIPPED[0]}


def test_signs_stay_where_the_reference_would_fail():
    made, _ = generator(expression=ROOTS)

    assert not any(bool((made.fresh().inputs[0] < 0).any()) for _ in range(20))


def test_half_precision_is_near_enough_on_positive_inputs_only():
    made, session = generator()
    verdicts: dict[str, set[bool]] = {"own": set(), "flipped": set()}
    for _ in range(30):
        given = made.fresh()
        a, b = given.inputs
        half = a.half().float() @ b.half().float()
        near = correctness.plausible(given.like, [half], [a @ b])
        right = correctness.judge(given.answers(session), [half], [_meta(half)], given.like.skeleton).ok
        verdicts[given.like.gate].add(near or right)

    assert verdicts == {"own": {True}, "flipped": {False}}


def _meta(tensor: torch.Tensor) -> dict[str, object]:
    shape = {"shape": list(tensor.shape), "stride": list(tensor.stride())}
    return {"type": "torch.Tensor", "dtype": "float32", "device": "cpu", "layout": "strided", **shape}
