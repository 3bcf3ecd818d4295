"""Scripts of the replay model: what is refused and how, which answer a prompt gets, which request a fault hits."""

from pathlib import Path

import pytest
import yaml

from kernelsearch.replay import chooser, faults, script, tokens
from kernelsearch.replay.script import Step

SMALL = """
schema: 1
model: small
answers:
  a: {content: A}
  b: {content: B, thought: hm}
  c: {content: C}
rules:
  - {name: first, when: {step: first}, answers: [a, b]}
fallback: c
"""


def with_rules(*rules: dict, **more) -> script.Script:
    data = yaml.safe_load(SMALL)
    return script.Script.model_validate({**data, "rules": list(rules), **more})


def given(of: script.Script, *prompts: str, conversation: str = "") -> str:
    """The names of the answers to these prompts, in order."""
    chooses = chooser.Chooser(of)
    return "".join(chooses.choose(prompt, conversation).name for prompt in prompts)


# ---- reading ----


def test_a_script_is_read_and_knows_its_label():
    assert script.parse(SMALL).label == "replay:small"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("answers: {}", r"answers: Dictionary should have at least 1 item"),
        ("fallback: z", r"fallback names the answer 'z'; write one of: a, b, c"),
        ("rules: [{name: r, answers: [z]}]", r"rule 'r' names the answer 'z'; write one of: a, b, c"),
        ("rules: [{name: r, answers: [a]}, {name: r, answers: [a]}]", r"two rules are named 'r'; rename one"),
        ("rules: [{name: r, answers: []}]", r"rules\.0\.answers: Tuple should have at least 1 item"),
        ("rules: [{name: r, answers: [a], when: {matches: ['(']}}]", r"'\(' is no regular expression"),
        ("rules: [{name: r, answers: [a], when: {step: third}}]", r"rules\.0\.when\.step.*'first', 'repair'"),
        ("rules: [{name: r, answers: [a], then: stop}]", r"rules\.0\.then.*'next', 'repeat' or 'cycle'"),
        ("rules: [{name: r, answer: [a]}]", r"rules\.0\.answer: Extra inputs are not permitted"),
        ("pace: {tokensPerSecond: 0}", r"pace\.tokensPerSecond: Input should be greater than 0 \(here: 0\)"),
        ("schema: 2", r"schema: Input should be 1 \(here: 2\)"),
        ("model: 'a b'", r"model: String should match pattern .* \(here: 'a b'\)"),
        ("thoughtField: thinking", r"thoughtField.*'reasoning_content'"),
        ("faults: [{kind: fire}]", r"faults\.0\.kind.*'rate_limit'"),
        ("steps: {first: '['}", r"steps\.first.*no regular expression"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_what_may_stand_there(change: str, message: str):
    data = {**yaml.safe_load(SMALL), **yaml.safe_load(change)}

    with pytest.raises(script.ScriptError, match=message):
        script.parse(yaml.safe_dump(data), "s.yaml")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(script.ScriptError, match=r"(?s)2 mistake.*model.*fallback"):
        script.parse(SMALL.replace("model: small", "").replace("fallback: c", ""))


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]", "a: b: c"])
def test_what_is_no_mapping_is_refused_by_name(text: str):
    with pytest.raises(script.ScriptError, match=r"^s\.yaml: "):
        script.parse(text, "s.yaml")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(script.ScriptError, match=r"none\.yaml: the script cannot be read"):
        script.load(tmp_path / "none.yaml")


# ---- choosing ----


def test_a_rule_gives_its_answers_in_turn_and_then_leaves_it_to_the_next():
    assert given(script.parse(SMALL), *["# Task: write a first version"] * 4) == "abcc"


@pytest.mark.parametrize(("then", "names"), [("next", "abccc"), ("repeat", "abbbb"), ("cycle", "ababa")])
def test_what_follows_the_last_answer_is_the_rules_choice(then: str, names: str):
    of = with_rules({"name": "r", "answers": ["a", "b"], "then": then})

    assert given(of, *["x"] * 5) == names


def test_the_first_rule_that_fits_answers():
    of = with_rules(
        {"name": "r", "when": {"matches": ["wrong"]}, "answers": ["a"], "then": "repeat"},
        {"name": "s", "answers": ["b"], "then": "repeat"},
    )

    assert given(of, "it is WRONG", "it is right", "wrong") == "aba"


def test_all_patterns_must_match_and_none_of_the_others():
    of = with_rules(
        {"name": "r", "when": {"matches": ["one", "two"], "lacks": ["three"]}, "answers": ["a"], "then": "repeat"}
    )

    assert given(of, "one", "one\ntwo", "two one three") == "cac"


def test_a_pattern_sees_each_line():
    of = with_rules({"name": "r", "when": {"matches": ["^# Task"]}, "answers": ["a"], "then": "repeat"})

    assert given(of, "hello\n# Task: x", "no # Task") == "ac"


def test_turns_are_everybodys_unless_they_are_a_conversations():
    for turns, second in (("server", "b"), ("conversation", "a")):
        chooses = chooser.Chooser(with_rules({"name": "r", "answers": ["a", "b"], "turns": turns}))
        chooses.choose("x", "one")

        assert chooses.choose("x", "two").name == second


def test_only_new_skips_what_another_rule_has_given():
    of = with_rules(
        {"name": "r", "when": {"matches": ["r"]}, "answers": ["a"], "then": "repeat"},
        {"name": "s", "answers": ["a", "b"], "onlyNew": True},
    )

    assert given(of, "r", "s", "s") == "abc"
    assert given(of, "s", "s", "s") == "abc"


def test_an_answer_given_back_is_the_next_one_of_its_rule():
    chooses = chooser.Chooser(script.parse(SMALL))
    lost = chooses.choose("# Task: write a first version")
    chooses.give_back(lost)

    assert chooses.choose("# Task: write a first version").name == "a"
    assert chooses.choose("# Task: write a first version").name == "b"


def test_an_answer_given_back_is_new_again():
    chooses = chooser.Chooser(
        with_rules(
            {"name": "r", "when": {"matches": ["r"]}, "answers": ["a"]},
            {"name": "s", "answers": ["a", "b"], "onlyNew": True},
        )
    )
    chooses.give_back(chooses.choose("r"))

    assert chooses.choose("s").name == "a"


def test_steps_are_told_apart_by_the_headings_of_our_prompts():
    of = script.parse(SMALL)

    assert chooser.step_of(of, "x\n# Task: write a first version\n") is Step.FIRST
    assert chooser.step_of(of, "x\n# Task: repair\nmake it faster") is Step.REPAIR
    assert chooser.step_of(of, "x\n# Task: make it faster\n# Task") is Step.IMPROVE
    assert chooser.step_of(of, "hello") is Step.FIRST


def test_a_script_may_tell_steps_by_its_own_patterns():
    of = with_rules({"name": "r", "when": {"step": "repair"}, "answers": ["a"]}, steps={"repair": "oh no"})

    assert given(of, "oh no") == "a"


# ---- tokens ----


@pytest.mark.parametrize("text", ["", "a", "class ModelNew:\n    x = 1\n\n\n", "häß→≤ 中文 __x__ (a+b)*c  ", "\t\n"])
def test_pieces_join_to_the_text(text: str):
    assert "".join(tokens.split(text)) == text


def test_prose_has_about_a_token_for_four_characters():
    text = (Path(__file__).parents[2] / "LICENSE").read_text()

    assert 2.5 < len(text) / tokens.count(text) < 5


# ---- faults ----


def test_a_fault_is_read_from_the_command_line():
    fault = faults.Fault.parse("drop:requests=2+5,after=40,times=3")

    assert fault.kind is faults.Kind.DROP
    assert (fault.requests, fault.after, fault.times) == ((2, 5), 40, 3)


@pytest.mark.parametrize(
    "text", ["fire", "drop:after=x", "drop:speed=3", "drop:after", "rate_limit:retry_after=-1", "", "drop:every=-2"]
)
def test_a_fault_that_cannot_be_read_says_what_may_be_written(text: str):
    with pytest.raises(faults.FaultError, match=r"Write KIND\[:NAME=VALUE,\.\.\.\] with KIND one of rate_limit, "):
        faults.Fault.parse(text)


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("hang", [1, 2, 3, 4, 5, 6]),
        ("hang:times=2", [1, 2]),
        ("hang:requests=2+5", [2, 5]),
        ("hang:every=3", [3, 6]),
        ("hang:every=3,requests=1", [1, 3, 6]),
        ("hang:every=2,times=1", [2]),
    ],
)
def test_a_fault_hits_its_requests(text: str, hit: list[int]):
    plan = faults.Plan([faults.Fault.parse(text)])

    assert [number for number in range(1, 7) if plan.strike(number)] == hit


def test_the_first_fault_that_hits_strikes_and_the_others_keep_their_times():
    plan = faults.Plan([faults.Fault.parse("hang:requests=1"), faults.Fault.parse("drop:times=1")])

    assert [fault and fault.kind for fault in map(plan.strike, (1, 2, 3))] == ["hang", "drop", None]
