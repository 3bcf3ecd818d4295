"""Which answer a prompt gets. No time, no network: the same prompts in the same order get the same answers.

An answer that did not reach its reader (dropped, cut, killed) is given back, and goes to the next prompt of its rule:
a client that retries then hears what it would have heard.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from kernelsearch.replay.script import Answer, Rule, Script, Step

FLAGS = re.IGNORECASE | re.DOTALL | re.MULTILINE


@dataclass(frozen=True)
class Choice:
    """An answer, and where it came from."""

    name: str
    answer: Answer
    rule: str
    conversation: str = ""


@dataclass
class _Turns:
    """How far one rule has come in one conversation (or in all of them)."""

    given: int = 0
    returned: list[str] = field(default_factory=list)


class Chooser:
    """Applies a script's rules and remembers whose turn it is."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._turns: defaultdict[tuple[str, str], _Turns] = defaultdict(_Turns)
        self._out: Counter[str] = Counter()

    def choose(self, prompt: str, conversation: str = "") -> Choice:
        """The answer to this prompt: by the first rule that fits and has one left, else the fallback."""
        for rule in self._script.rules:
            if fits(self._script, rule, prompt) and (name := self._next(rule, conversation)) is not None:
                self._out[name] += 1
                return Choice(name, self._script.answers[name], rule.name, self._owner(rule, conversation))
        fallback = self._script.fallback
        return Choice(fallback, self._script.answers[fallback], rule="fallback")

    def give_back(self, choice: Choice) -> None:
        """The answer did not arrive: the rule's next prompt gets it."""
        if choice.rule != "fallback":
            self._out[choice.name] -= 1
            self._turns[choice.rule, choice.conversation].returned.append(choice.name)

    def _next(self, rule: Rule, conversation: str) -> str | None:
        turns = self._turns[rule.name, self._owner(rule, conversation)]
        if turns.returned:
            return turns.returned.pop(0)
        while turns.given < len(rule.answers):
            turns.given += 1
            name = rule.answers[turns.given - 1]
            if not (rule.only_new and self._out[name] > 0):
                return name
        return self._after_last(rule, turns)

    @staticmethod
    def _after_last(rule: Rule, turns: _Turns) -> str | None:
        if rule.then == "next":
            return None
        turns.given += 1
        return rule.answers[-1 if rule.then == "repeat" else (turns.given - 1) % len(rule.answers)]

    @staticmethod
    def _owner(rule: Rule, conversation: str) -> str:
        return conversation if rule.turns == "conversation" else ""


def fits(script: Script, rule: Rule, prompt: str) -> bool:
    """Whether a rule is about this prompt."""
    when = rule.when
    return (
        when.step in {None, step_of(script, prompt)}
        and all(re.search(pattern, prompt, FLAGS) for pattern in when.matches)
        and not any(re.search(pattern, prompt, FLAGS) for pattern in when.lacks)
    )


def step_of(script: Script, prompt: str) -> Step:
    """What the prompt asks for."""
    for step, pattern in script.steps.items():
        if re.search(pattern, prompt, FLAGS):
            return step
    return Step.FIRST
