"""The models of KernelSearch: strict, bounded, documented, and in step with what the loop publishes."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kernelsearch.api import part, validation
from kernelsearch.api.kernelsearch import FIXED
from kernelsearch.api.part import Part
from kernelsearch.api.spec import KernelSearchSpec
from kernelsearch.api.status import Attempts, KernelSearchStatus
from kernelsearch.search import strategy
from kernelsearch.search.facts import (
    Best,
    Counters,
    CurvePoint,
    Facts,
    Outcome,
    ProblemFacts,
    Reason,
    Recent,
    TokenCount,
)
from kernelsearch.search.population import Verdict
from kernelverify_api import request

SPEC = {
    "problem": {"inline": {"reference": "import torch"}},
    "model": {"name": "m", "endpoint": {"url": "http://here/v1"}},
    "verifiers": {"serve": {}},
}


def search(**spec) -> dict:
    head = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "x"}}
    return {**head, "spec": {**SPEC, **spec}}


def parts(kind: type[Part] = Part) -> Iterator[type[Part]]:
    for each in kind.__subclasses__():
        yield each
        yield from parts(each)


EVERY_PART = sorted(parts(), key=lambda each: each.__name__)


def test_defaults_are_what_the_design_says():
    spec = validation.read(search()).spec

    assert (spec.search.chains, spec.search.strategy, spec.budget.deadline_seconds) == (8, "BestOfN", 900)
    assert (spec.budget.startup_deadline_seconds, spec.budget.grace_period_seconds) == (3600, 60)
    assert (spec.kernel.languages, spec.kernel.custom_kernel) == (("triton", "cuda"), "Required")
    assert (spec.model.sampling.temperature, spec.model.sampling.top_p) == ("0.6", "0.95")
    assert spec.ttl_seconds_after_finished is None


@pytest.mark.parametrize("kind", EVERY_PART, ids=lambda each: each.__name__)
def test_every_field_is_described(kind):
    silent = [name for name, field in kind.model_fields.items() if not field.description]

    assert not silent


@pytest.mark.parametrize("kind", EVERY_PART, ids=lambda each: each.__name__)
def test_every_name_is_camel_case_in_a_manifest(kind):
    odd = [field.alias for field in kind.model_fields.values() if "_" in (field.alias or "_")]

    assert not odd


def test_every_pattern_has_words_for_its_author():
    patterns = {getattr(part, name) for name in dir(part) if isinstance(getattr(part, name), str)}

    assert {each for each in patterns if each.startswith("^")} == part.IN_WORDS.keys()


def test_a_python_name_is_no_field():
    with pytest.raises(validation.InvalidManifestError, match="did you mean maxAttempts"):
        validation.read(search(budget={"max_attempts": 1}))


def test_a_manifest_survives_its_own_text():
    read = validation.read(search(baselines=["eager", "compile"], budget={"targetSpeedup": "2.5"}))

    assert validation.read(json.loads(read.model_dump_json(exclude_none=True))) == read


def test_models_cannot_be_changed():
    spec = validation.read(search()).spec

    with pytest.raises(ValidationError):
        spec.suspend = True


@pytest.mark.parametrize("name", ["Serial", "BestOfN", "Adaptive"])
def test_every_strategy_of_the_api_is_known_to_the_loop(name):
    assert validation.read(search(search={"strategy": name})).spec.search.strategy == name
    assert strategy.choose(name, 0, "cpu")


@pytest.mark.parametrize(
    ("field", "wire"),
    [("customKernel", request.CustomKernel), ("torchOps", request.TorchOps), ("languages", request.Language)],
)
def test_the_api_says_the_same_words_as_the_wire(field, wire):
    schema = KernelSearchSpec.model_json_schema()["$defs"]
    name = {"customKernel": "CustomKernel", "torchOps": "TorchOps", "languages": "Language"}[field]

    assert [each.lower() for each in schema[name]["enum"]] == [each.value for each in wire]


def test_each_field_of_the_spec_is_fixed_or_changeable():
    fields = {field.alias for field in KernelSearchSpec.model_fields.values()}

    assert {*KernelSearchSpec.changeable, *FIXED, "managedBy"} == fields
    assert not set(KernelSearchSpec.changeable) & set(FIXED)


def facts(**more) -> Facts:
    return Facts(
        sequence=7,
        attempts=Counters(*range(10)),
        in_flight=2,
        tokens=TokenCount(1, 2, 3),
        problem=ProblemFacts("p", "a" * 64, {"finding": "zeros", "criterion": "ours", "evidence": "e"}, 12.5),
        best=Best(3, "x" * 40_000, "cpp", 12.3, 1.234567, (1.1, 1.3), "eager", 0.00001, "a CPU"),
        first_correct_seconds=3.2,
        curve=tuple(CurvePoint(each, each, 1.0 + each) for each in range(50)),
        recent=tuple(Recent(each, 0, verdict, None, 1.0, "r" * 900) for each, verdict in enumerate(Verdict)),
        outcome=Outcome(Reason.DEADLINE_REACHED, "m" * 900, 900.0, "2026-01-01T00:00:00+00:00"),
        **more,
    )


def test_what_the_loop_publishes_is_a_valid_status():
    published = json.dumps(facts().to_status())

    status = KernelSearchStatus.model_validate_json(published)

    assert status.best is not None
    assert (status.best.speedup, status.best.source_truncated) == ("1.235", True)
    assert len(published) <= 64 * 1024


def test_the_runner_owns_no_field_of_the_operator():
    operators = {"phase", "conditions", "observedGeneration", "startTime", "segmentStartTime", "deadlineTime"}

    assert not operators & facts().to_status().keys()


def test_every_counter_of_the_loop_has_its_field():
    assert {field.alias for field in Attempts.model_fields.values()} == facts().to_status()["attempts"].keys()


# ---- whatever is written, the answer is words for its author ----

WORDS = st.sampled_from(["spec", "model", "name", "inline", "endpoint", "url", "axes", "", "a.b", "\u202e", "x" * 70])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)


def faults(data: object) -> tuple[validation.Fault, ...]:
    try:
        validation.read(data)
    except validation.InvalidManifestError as error:
        return error.faults
    return ()


def places(node: object, path: tuple = ()) -> Iterator[tuple]:
    yield path
    for key, child in node.items() if isinstance(node, dict) else ():
        yield from places(child, (*path, key))


def replaced(node: dict, path: tuple, value: object) -> object:
    if not path:
        return value
    head, *rest = path
    return {**node, head: replaced(node[head], tuple(rest), value)}


@given(path=st.sampled_from(list(places(search(budget={"maxTokens": 1}, search={}, kernel={})))), value=VALUES)
def test_any_value_anywhere_is_read_or_refused_in_words(path, value):
    whole = search(budget={"maxTokens": 1}, search={}, kernel={})

    messages = [fault.message for fault in faults(replaced(whole, path, value))]

    assert all(message and "Input should" not in message for message in messages)


@given(value=VALUES)
def test_a_value_in_a_message_is_short_and_on_one_line(value):
    assert "\n" not in validation.shown(value)
    assert len(validation.shown(value)) <= 500
