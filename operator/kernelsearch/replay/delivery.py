"""One answer on its way: what was asked, what will be sent, and its pieces over the wire when each is due.

Shapes follow vLLM with `--reasoning-parser deepseek_r1`.
"""

import asyncio
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kernelsearch.replay import tokens
from kernelsearch.replay.faults import Fault, Kind
from kernelsearch.replay.script import Answer, Pace, Script, ThoughtField

ENDLESS_THOUGHT = "Wait, let me reconsider the tile size once more. "
MOST_AT_ONCE = 32
"""Pieces in one write. At an absurd speed-up the readers still get something to read now and then."""


@dataclass(frozen=True)
class Request:
    """What of a chat request matters here."""

    prompt: str
    conversation: str
    stream: bool
    usage: bool
    max_tokens: int | None

    @classmethod
    def read(cls, body: Any) -> "Request":
        """Raises ValueError with what is wrong."""
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise ValueError("'messages' must be a list of at least one message")
        texts = [_text(message.get("content")) for message in messages]
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ValueError(f"'max_tokens' must be a positive integer, not {limit!r}")
        return cls(
            prompt=texts[-1],
            conversation=str(body.get("user") or texts[0]),
            stream=bool(body.get("stream")),
            usage=bool((body.get("stream_options") or {}).get("include_usage")),
            max_tokens=limit,
        )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


@dataclass(frozen=True)
class Text:
    """What will be sent: pieces of thought and content, each with the field it goes into, and how it ends."""

    pieces: tuple[tuple[str, str], ...]
    finish: str
    reasoning: int

    @classmethod
    def of(cls, answer: Answer, where: ThoughtField, limit: int | None) -> "Text":
        """Of a written answer: its thought placed where the script says, cut off after `limit` tokens."""
        thought, content = _placed(answer, where)
        field = where.value if thought else "content"
        pieces = [(field, piece) for piece in tokens.split(thought)]
        pieces += [("content", piece) for piece in tokens.split(content)]
        cut = limit is not None and len(pieces) > limit
        sent = tuple(pieces[:limit])
        return cls(sent, "length" if cut else answer.finish, min(tokens.count(answer.thought), len(sent)))


def _placed(answer: Answer, where: ThoughtField) -> tuple[str, str]:
    if not answer.thought or where in {ThoughtField.REASONING, ThoughtField.REASONING_CONTENT}:
        return answer.thought, answer.content
    opening = "<think>\n" if where is ThoughtField.INLINE else ""
    return "", f"{opening}{answer.thought}\n</think>\n\n{answer.content}"


def limit_of(asked: Request, fault: Fault | None) -> int | None:
    """Tokens after which the answer ends, whoever said so."""
    limits = [asked.max_tokens] if asked.max_tokens is not None else []
    if fault is not None and fault.kind is Kind.TRUNCATE:
        limits.append(fault.after)
    return min(limits) if limits else None


@dataclass
class Delivery:
    """One answer on its way."""

    script: Script
    speed: float
    number: int
    asked: Request
    text: Text
    fault: Fault | None
    complete: bool = False

    async def whole(self) -> web.Response:
        """All at once, after the time that writing it takes."""
        if self._has(Kind.ENDLESS, Kind.STALL):
            await asyncio.Event().wait()
        pace = Pacer(self._pace(), self.speed)
        await pace.wait_for(len(self.text.pieces))
        if self._has(Kind.DROP):
            return error_response(502, "The replay was told to lose this answer", "BadGateway")
        message = {"role": "assistant", "content": self._joined("content"), **self._thought()}
        choice = {"index": 0, "message": message, "finish_reason": self.text.finish}
        self.complete = True
        return web.json_response({**self._head("chat.completion"), "choices": [choice], "usage": self._usage()})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Piece by piece as server-sent events, at the script's pace."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        await response.write(self._event({"role": "assistant", "content": ""}))
        await self._send(response, itertools.cycle(self._endless()) if self._has(Kind.ENDLESS) else self._pieces())
        if self._has(Kind.DROP, Kind.STALL):
            return await self._break_off(request, response)
        await response.write(self._end())
        self.complete = True
        return response

    async def _send(self, response: web.StreamResponse, pieces: Iterable[tuple[str, str]]) -> None:
        """Write each piece when it is due; those that are due together go out together."""
        pace = Pacer(self._pace(), self.speed)
        due: list[bytes] = []
        for index, (field, piece) in enumerate(pieces):
            if due and (len(due) >= MOST_AT_ONCE or not pace.is_due(index)):
                await response.write(b"".join(due))
                due.clear()
            await pace.wait_for(index)
            due.append(self._event({field: piece}))
        await response.write(b"".join(due))

    def _pieces(self) -> tuple[tuple[str, str], ...]:
        if self.fault is not None and self._has(Kind.DROP, Kind.STALL):
            return self.text.pieces[: self.fault.after]
        return self.text.pieces

    def _endless(self) -> list[tuple[str, str]]:
        inline = self.script.thought_field in {ThoughtField.INLINE, ThoughtField.INLINE_UNOPENED}
        field = "content" if inline else self.script.thought_field.value
        return [(field, piece) for piece in tokens.split(ENDLESS_THOUGHT)]

    async def _break_off(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        if self._has(Kind.STALL):
            await asyncio.Event().wait()
        if request.transport is not None:
            request.transport.abort()
        return response

    def _has(self, *kinds: Kind) -> bool:
        return self.fault is not None and self.fault.kind in kinds

    def _pace(self) -> Pace:
        if self.fault is None or self.fault.kind is not Kind.SLOW_START:
            return self.script.pace
        # The delay is a fault's and asked for in real seconds, so the speed-up does not shorten it.
        return self.script.pace.model_copy(update={"first_token_seconds": self.fault.seconds * self.speed})

    def _end(self) -> bytes:
        last = [self._event({}, finish=self.text.finish)]
        if self.asked.usage:
            last.append(_sse({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()}))
        return b"".join([*last, b"data: [DONE]\n\n"])

    def _event(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-replay-{self.number}",
            "object": kind,
            "created": 0,
            "model": self.script.label,
            "system_fingerprint": "replay",
        }

    def _usage(self) -> dict[str, Any]:
        prompt, completion = tokens.count(self.asked.prompt), len(self.text.pieces)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": self.text.reasoning},
        }

    def _joined(self, field: str) -> str:
        return "".join(piece for name, piece in self.text.pieces if name == field)

    def _thought(self) -> dict[str, str]:
        fields = (ThoughtField.REASONING.value, ThoughtField.REASONING_CONTENT.value)
        return {field: text for field in fields if (text := self._joined(field))}


def _sse(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


class Pacer:
    """When each piece is due, from the moment that this was made."""

    SHORTEST = 0.004
    """Waits below this are saved up, so that a high speed-up is not held back by the timer."""

    def __init__(self, pace: Pace, speed: float) -> None:
        self._start = asyncio.get_running_loop().time() + pace.first_token_seconds / speed
        self._interval = 1 / (pace.tokens_per_second * speed)

    def is_due(self, index: int) -> bool:
        """Whether the piece of this index may go out now."""
        return self._left(index) <= self.SHORTEST

    async def wait_for(self, index: int) -> None:
        """Return when the piece of this index is due. Now and then others get their turn however late it is."""
        if not self.is_due(index):
            await asyncio.sleep(self._left(index))
        elif index % MOST_AT_ONCE == 0:
            await asyncio.sleep(0)

    def _left(self, index: int) -> float:
        return self._start + index * self._interval - asyncio.get_running_loop().time()


def error_response(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.json_response(body, status=status, headers=headers)
