"""How the replay model fails on purpose: as a real server does when it is overloaded, restarted or merely stubborn.

A fault is written in the script, or on the command line as `KIND[:NAME=VALUE,...]`:
`rate_limit:every=3,retry_after=1`, `drop:requests=2+5,after=40`, `endless:times=1`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel


class Kind(StrEnum):
    """What goes wrong. The first three before an answer is chosen, the others with one."""

    RATE_LIMIT = "rate_limit"
    """429 with Retry-After."""
    SERVER_ERROR = "server_error"
    """500 with an error body."""
    HANG = "hang"
    """The request is accepted and never answered."""
    SLOW_START = "slow_start"
    """The first token comes `seconds` late; everything else is right."""
    STALL = "stall"
    """Tokens stop coming after `after` tokens; the connection stays open."""
    DROP = "drop"
    """The connection breaks after `after` tokens."""
    ENDLESS = "endless"
    """The thought never ends: it goes on until the client leaves."""
    TRUNCATE = "truncate"
    """The answer ends after `after` tokens with finish_reason `length`."""


class Fault(BaseModel):
    """One fault and the requests that it hits: those listed, every n-th, or all; at most `times` of them."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True
    )

    kind: Kind
    requests: tuple[int, ...] = ()
    """Numbers of the chat requests that fail, counted from 1."""
    every: int = Field(default=0, ge=0)
    """Every n-th request fails; 0 = no such rule."""
    times: int = Field(default=0, ge=0)
    """Fail so often at most; 0 = no limit."""
    after: int = Field(default=20, ge=0)
    """Tokens sent before `stall`, `drop` and `truncate`."""
    seconds: float = Field(default=30.0, gt=0)
    """Delay of `slow_start`."""
    retry_after: float = Field(default=1.0, ge=0)
    """What a 429 says in Retry-After, seconds."""

    @field_validator("requests", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split("+") if isinstance(value, str) else value

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the command line's form. Raises FaultError, which says what may be written."""
        kind, _, rest = text.partition(":")
        pairs = [pair.partition("=") for pair in rest.split(",") if pair]
        try:
            return cls.model_validate({"kind": kind, **{name.strip(): value for name, _, value in pairs}})
        except ValidationError as error:
            raise FaultError(_explain(text, error)) from error

    def hits(self, request: int) -> bool:
        """Whether this fault is for the request of this number."""
        if self.requests or self.every:
            return request in self.requests or bool(self.every and request % self.every == 0)
        return True


class FaultError(ValueError):
    """A fault that cannot be read. The message names the part, the value and what may stand there."""


def _explain(text: str, error: ValidationError) -> str:
    first = error.errors()[0]
    names = ", ".join(name for name in Fault.model_fields if name != "kind")
    where = ".".join(map(str, first["loc"]))
    return (
        f"--fault {text!r}: {where}: {first['msg']}. Write KIND[:NAME=VALUE,...] with KIND one of "
        f"{', '.join(Kind)} and NAME one of {names}"
    )


class Plan:
    """The faults of one server, which remembers how often each one has struck."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = tuple(faults)
        self._struck = [0] * len(self._faults)

    def strike(self, request: int) -> Fault | None:
        """The fault of this request: the first that hits it and is not used up."""
        for index, fault in enumerate(self._faults):
            if fault.hits(request) and not (fault.times and self._struck[index] >= fault.times):
                self._struck[index] += 1
                return fault
        return None
