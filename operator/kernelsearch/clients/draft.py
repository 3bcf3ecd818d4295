"""An answer while it streams in: thought and content apart, and its tokens counted even when the server never does.

Reads chunks defensively, since they come from strangers: a field that is missing or of another type is no text.
"""

from typing import Any

from kernelsearch.search.ports import Answer, Clock, Finish, Tokens

CHARACTERS_PER_TOKEN = 3.5
"""Between R1's prose (about 4) and its code (about 3); only for answers that never reported their usage."""


class Draft:
    """An answer while it comes in."""

    def __init__(self, prompt: str, model: str, thought_fields: tuple[str, ...], clock: Clock) -> None:
        self._clock = clock
        self.prompt = prompt
        self._model = model
        self._thought_fields = thought_fields
        self._started = self._clock.now()
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._characters = 0
        self._usage: Any = None
        self.pieces = 0
        """Deltas with text so far."""
        self.finish: Finish | None = None

    def add(self, chunk: Any) -> bool:
        """Take in one chunk of the stream; True when it held text."""
        self._model = getattr(chunk, "model", None) or self._model
        self._usage = getattr(chunk, "usage", None) or self._usage
        choice = next(iter(getattr(chunk, "choices", None) or ()), None)
        if choice is None:
            return False
        if getattr(choice, "finish_reason", None):
            self.finish = Finish.LENGTH if choice.finish_reason == "length" else Finish.STOP
        return self._take(getattr(choice, "delta", None))

    def _take(self, delta: Any) -> bool:
        thought = _first_text(delta, self._thought_fields)
        content = _first_text(delta, ("content",))
        if not thought and not content:
            return False
        self._reasoning.append(thought)
        self._content.append(content)
        self._characters += len(thought) + len(content)
        self.pieces += 1
        return True

    @property
    def completion(self) -> int:
        """Tokens so far, by our own count: most servers send one a delta, some several."""
        return max(self.pieces, _estimated(self._characters))

    @property
    def lost(self) -> Tokens:
        """What is to be paid should the answer break off here: a server bills what it has sent."""
        return self._estimate() if self.pieces else Tokens()

    def unasked(self) -> Answer:
        """The deadline came before the request did: nothing was sent, nothing spent."""
        return Answer("", "", Finish.CUT, Tokens(estimated=True), self._model, seconds=0.0)

    def answer(self, finish: Finish) -> Answer:
        """What came in, as the loop sees it."""
        return Answer(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            finish=finish,
            tokens=self._estimate() if self._usage is None or finish is Finish.CUT else self._reported(),
            model=self._model,
            seconds=self._clock.now() - self._started,
        )

    def _reported(self) -> Tokens:
        completion = int(getattr(self._usage, "completion_tokens", 0) or 0)
        details = getattr(self._usage, "completion_tokens_details", None)
        reasoning = getattr(details, "reasoning_tokens", None)
        return Tokens(
            prompt=int(getattr(self._usage, "prompt_tokens", 0) or 0),
            completion=completion,
            # Few servers split their count; the characters then say how much of it was thought.
            reasoning=self._thought_share(completion) if reasoning is None else int(reasoning),
        )

    def _estimate(self) -> Tokens:
        completion = self.completion
        return Tokens(
            prompt=_estimated(len(self.prompt)),
            completion=completion,
            reasoning=self._thought_share(completion),
            estimated=True,
        )

    def _thought_share(self, completion: int) -> int:
        content = "".join(self._content)
        inside, closed, _ = content.rpartition("</think>")
        thought = sum(map(len, self._reasoning)) + len(inside) + len(closed)
        return round(completion * thought / self._characters) if self._characters else 0


def _first_text(delta: Any, fields: tuple[str, ...]) -> str:
    for name in fields:
        text = getattr(delta, name, None)
        if isinstance(text, str) and text:
            return text
    return ""


def _estimated(characters: int) -> int:
    return round(characters / CHARACTERS_PER_TOKEN)
