"""The kernel in an answer: written answers in `answers/`, each with what must come out of it."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import strategies
from kernelsearch.search import extract
from kernelsearch.search.extract import Kernel, NoKernel
from kernelsearch.search.ports import Answer, Finish, Tokens
from kernelverify_api.request import MAX_SOURCE, Language

ALLOWED = (Language.TRITON, Language.CUDA, Language.CPP)
FILES = sorted(Path(__file__).with_name("answers").glob("*.yaml"))


class Loader(yaml.SafeLoader):
    """YAML has no lone surrogates; a written answer spells one as an escape all the same."""

    def check_printable(self, data):
        pass


def written() -> list:
    return [
        pytest.param(case, id=f"{path.stem}: {case['name']}")
        for path in FILES
        for case in yaml.load(path.read_text(encoding="utf-8"), Loader)
    ]


def as_answer(case) -> Answer:
    reasoning = case.get("reasoning") or case.get("reasoning_content") or ""
    return Answer(case["content"], reasoning, Finish(case.get("finish", "stop")), Tokens(), "m", 1.0)


@pytest.mark.parametrize("case", written())
def test_a_written_answer(case):
    found = extract.kernel(as_answer(case), ALLOWED)

    if "none" in case:
        assert found == NoKernel(case["none"])
    else:
        assert isinstance(found, Kernel), found
        assert found.language == case.get("language", found.language)
        for text in case.get("holds", ()):
            assert text in found.source
        for text in case.get("lacks", ()):
            assert text not in found.source


def test_there_are_enough_written_answers():
    assert len(written()) >= 40


def test_too_long_a_source_is_refused_with_its_length():
    content = "```python\nclass ModelNew: pass\n" + "#" * MAX_SOURCE + "\n```"

    found = extract.kernel(Answer(content, "", Finish.STOP, Tokens(), "m", 1.0), ALLOWED)

    assert isinstance(found, NoKernel)
    assert "characters long" in found.reason


@given(st.text(alphabet="`~\n pyth:#=class ModelNew<think>/\ud800\x00", max_size=300), st.sampled_from(Finish))
def test_no_answer_breaks_it(content, finish):
    found = extract.kernel(Answer(content, "", finish, Tokens(), "m", 1.0), ALLOWED)

    assert isinstance(found, Kernel | NoKernel)


@given(strategies.hostile_text, strategies.hostile_text)
def test_what_comes_out_can_always_be_sent(before, inside):
    content = f"{before}\n```python\nclass ModelNew: pass\n# {inside}\n```"

    found = extract.kernel(Answer(content, "", Finish.STOP, Tokens(), "m", 1.0), ALLOWED)

    if isinstance(found, Kernel):
        assert found.source.encode().decode() == found.source
        assert "ModelNew" in found.source


@given(st.lists(st.sampled_from(["```python", "```", "~~~", "````", "x = 1", "class ModelNew: pass"]), max_size=12))
def test_blocks_lie_apart_and_in_order(lines):
    found = extract.blocks(lines)

    for earlier, later in pairwise(found):
        assert earlier.end < later.first + 1
    assert all(0 <= block.first <= block.end <= len(lines) for block in found)
    assert all(block.closed for block in found[:-1]) or "```python" in lines
