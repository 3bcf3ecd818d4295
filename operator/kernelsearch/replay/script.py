"""The script of a replay model: written answers, and rules that choose one by what the prompt asks. YAML, schema 1.

docs/replay.md explains the format by example. A script that cannot be used is refused with the field, the value and
what to write instead, before the server starts.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from kernelsearch.replay.faults import Fault


class ScriptError(ValueError):
    """The script cannot be used. The message names the file, the field, the value and what to write instead."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A Python regular expression, searched anywhere in the prompt; case ignored, `.` matches line ends, `^` each line."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class Part(BaseModel):
    """Base of everything in a script: frozen, camelCase in the file, and an unknown field is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )


class ThoughtField(StrEnum):
    """Where a server puts the thought; real ones differ."""

    REASONING_CONTENT = "reasoning_content"
    """DeepSeek's own API, SGLang, older vLLM."""
    REASONING = "reasoning"
    """Newer vLLM, OpenRouter."""
    INLINE = "inline"
    """Inside the content, between `<think>` and `</think>`."""
    INLINE_UNOPENED = "inline_unopened"
    """Inside the content with `</think>` only, because the chat template already opened it."""


class Pace(Part):
    """How fast the model answers. The server's speed-up factor divides all of it."""

    tokens_per_second: float = Field(default=30.0, gt=0)
    """R1 on a busy server gives one chain 20 to 40."""
    first_token_seconds: float = Field(default=1.0, ge=0)
    """Reading the prompt and waiting for a slot."""


class Answer(Part):
    """One written answer, sent as it stands."""

    thought: str = ""
    content: str
    finish: Literal["stop", "length"] = "stop"


class Step(StrEnum):
    """What a prompt asks for."""

    FIRST = "first"
    """A kernel from nothing but the problem."""
    REPAIR = "repair"
    """A kernel in place of one that failed."""
    IMPROVE = "improve"
    """A kernel faster than a correct one."""


class When(Part):
    """What a prompt must look like. Absent parts ask for nothing."""

    step: Step | None = None
    matches: tuple[Pattern, ...] = ()
    """All of these are found in the prompt."""
    lacks: tuple[Pattern, ...] = ()
    """None of these is found in the prompt."""


class Rule(Part):
    """Answers for prompts of one kind, given in turn. Rules are tried from the top."""

    name: Name
    when: When = When()
    answers: tuple[Name, ...] = Field(min_length=1)
    turns: Literal["server", "conversation"] = "server"
    """Whose turns are counted: everybody's together, or apart by the request's `user`, or else by its first message."""
    only_new: bool = False
    """Skip answers that another rule has already given."""
    then: Literal["next", "repeat", "cycle"] = "next"
    """Once the answers are used up: try the next rule, repeat the last answer, or begin again."""


DEFAULT_STEPS: Mapping[Step, str] = {
    Step.FIRST: r"^# Task: write a first version",
    Step.REPAIR: r"^# Task: repair",
    Step.IMPROVE: r"^# Task: make it faster",
}
"""How to see from a prompt what it asks: by the headings of `search/prompts`."""


class Script(Part):
    """The whole script."""

    schema_: Literal[1] = Field(alias="schema")
    model: Name
    """The model is named `replay:<this>` wherever a model is named."""
    description: str = ""
    thought_field: ThoughtField = ThoughtField.REASONING_CONTENT
    pace: Pace = Pace()
    steps: Mapping[Step, Pattern] = Field(default_factory=lambda: dict(DEFAULT_STEPS))
    """How to see what a prompt asks, in this order; what matches none is `first`."""
    answers: Mapping[Name, Answer] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    fallback: Name
    """The answer to a prompt that no rule answers."""
    faults: tuple[Fault, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = [(f"rule {rule.name!r}", answer) for rule in self.rules for answer in rule.answers]
        for where, answer in [*named, ("fallback", self.fallback)]:
            if answer not in self.answers:
                raise ValueError(f"{where} names the answer {answer!r}; write one of: {', '.join(self.answers)}")
        names = [rule.name for rule in self.rules]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"two rules are named {doubled[0]!r}; rename one")
        return self

    @property
    def label(self) -> str:
        """The name that this model goes by everywhere."""
        return f"replay:{self.model}"


def load(path: Path) -> Script:
    """Read a script. Raises ScriptError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: the script cannot be read: {error}") from error
    return parse(text, name=str(path))


def parse(text: str, name: str = "script") -> Script:
    """Read a script from YAML text. Raises ScriptError, which begins with `name`."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScriptError(f"{name}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ScriptError(f"{name}: expected a mapping (schema, model, answers, rules, fallback), not {data!r:.60}")
    try:
        return Script.model_validate(data)
    except ValidationError as error:
        raise ScriptError(_explain(name, error)) from error


def _explain(name: str, error: ValidationError) -> str:
    lines = [f"{name}: {len(error.errors())} mistake(s) in the script:"]
    for found in error.errors():
        where = ".".join(map(str, found["loc"])) or "script"
        lines.append(f"  {where}: {found['msg']}{_given(found['input'])}")
    return "\n".join([*lines, "docs/replay.md describes the format."])


def _given(value: Any) -> str:
    return "" if isinstance(value, dict | Script) else f" (here: {value!r:.80})"
