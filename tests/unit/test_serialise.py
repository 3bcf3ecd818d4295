"""The bytes of a request: JSON for everybody, and YAML as the API server's parser reads it."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kernelsearch.controller import serialise

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(UNICODE, UNICODE | st.integers(-(2**53), 2**53) | st.lists(UNICODE)))
def test_it_is_the_same_json(manifest):
    assert json.loads(serialise.yaml(manifest)) == manifest


@pytest.mark.parametrize(
    "text", ["🚀", "\x7f", "\x85", " \u2028", " \u2029", "\ufffe", "\uffff", "\x1b[31m", "中", "\x00", "\x9f"]
)
def test_what_a_kernels_comment_may_hold_survives_as_yaml(text):
    written = serialise.yaml({"source": text})

    assert yaml.safe_load(written.decode()) == {"source": text}
    assert b"\\ud8" not in written.lower()


def test_a_lone_surrogate_is_refused():
    with pytest.raises(serialise.LoneSurrogateError, match="cannot be written"):
        serialise.yaml({"source": "\ud83d"})


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        serialise.yaml({"x": float("nan")})
