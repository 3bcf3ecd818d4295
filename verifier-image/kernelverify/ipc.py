"""Messages between the verifier's processes: a 4-byte big-endian length, then one JSON object in UTF-8.

Both ends use the same framing, but they do not trust each other: a candidate's process may send anything. So a
receiver takes at most `limit` bytes, waits at most `timeout` seconds for the *whole* message, and accepts nothing but
an object of plain values, nested at most `MAX_DEPTH` deep. Descriptors travel beside a message only where the receiver
asks for them; otherwise the kernel drops them.

    ChannelError
    ├── Closed      the other end is gone
    ├── TimedOut    no whole message within the time
    └── Malformed   not a message of this protocol: oversize, no JSON object, too deep, Infinity, too many descriptors

Trees (arguments, outputs: tuples, lists, dicts, scalars around tensors) travel as a *skeleton*: plain JSON in which
each JSON object is a tag, `{"tensor": 3}`, `{"tuple": [...]}`, `{"dict": [[key, value], ...]}`, `{"float": "nan"}`,
`{"complex": [re, im]}`, and whatever tags the two ends agree on for other leaves. The tensors travel in memory.

Standard library only: the untrusted side imports this module too.
"""

import asyncio
import json
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

MAX_DEPTH = 64
"""Nesting that a message may have. Ours stay below ten; input trees of a problem may be deeper."""

MAX_FDS = 16
"""Descriptors that may travel with one message."""

SEND_TIMEOUT = 30.0
"""Seconds until a receiver that does not read is given up: a stopped candidate must not stop the referee."""

_HEADER = struct.Struct("!I")
_FD = struct.Struct("i")


class ChannelError(Exception):
    """Base of everything a channel raises."""


class Closed(ChannelError):  # noqa: N818 - read as ipc.Closed
    """The other end is closed."""


class TimedOut(ChannelError):  # noqa: N818 - read as ipc.TimedOut
    """The message did not arrive, or could not be handed over, in time."""


class Malformed(ChannelError):  # noqa: N818 - read as ipc.Malformed
    """What arrived is no message of this protocol."""


def encode(message: Mapping[str, Any], limit: int) -> bytes:
    """The frame of one message; `Malformed` when it is larger than the receiver will take."""
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode("utf-8", "replace")  # a lone surrogate in a candidate's text must not stop its report
    if len(body) > limit:
        raise Malformed(f"a message of {len(body)} bytes exceeds the channel's limit of {limit}")
    return _HEADER.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """The message in a frame's body, which may come from hostile code."""
    try:
        message = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are ValueErrors too
        raise Malformed(f"not JSON: {str(error)[:200]}") from error
    if not isinstance(message, dict):
        raise Malformed(f"a message is a JSON object, this is {type(message).__name__}")
    if _depth(message) > MAX_DEPTH:
        raise Malformed(f"nested deeper than {MAX_DEPTH}")
    return message


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """1e999 is JSON, and infinite: it could be read here and never be sent on."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _depth(value: object) -> int:
    """Nesting depth, level by level: recursion is what a deep message would attack."""
    depth, level = 0, [value]
    while level:
        depth += 1
        containers = [v for v in level if isinstance(v, dict | list)]
        level = [child for v in containers for child in (v.values() if isinstance(v, dict) else v)]
    return depth


def pack_tree(value: object, leaf: Callable[[object], dict[str, Any]]) -> Any:  # noqa: PLR0911 - one a case
    """The skeleton of a tree. `leaf` gives the tag of what is no container and no plain scalar."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return float(value) if math.isfinite(value) else {"float": repr(float(value))}
        case complex():
            return {"complex": [repr(value.real), repr(value.imag)]}
        case tuple():
            return {"tuple": [pack_tree(v, leaf) for v in value]}
        case list():
            return [pack_tree(v, leaf) for v in value]
        case dict():
            return {"dict": [[pack_tree(k, leaf), pack_tree(v, leaf)] for k, v in value.items()]}
        case _:
            return leaf(value)


def unpack_tree(skeleton: Any, leaf: Callable[[str, Any], object]) -> Any:  # noqa: PLR0911 - one a case
    """The tree of a skeleton; `leaf(tag, content)` gives the value of every tag that this module does not know."""
    match skeleton:
        case list():
            return [unpack_tree(v, leaf) for v in skeleton]
        case {"tuple": list(items)}:
            return tuple(unpack_tree(v, leaf) for v in items)
        case {"dict": list(pairs)}:
            return {unpack_tree(k, leaf): unpack_tree(v, leaf) for k, v in pairs}
        case {"float": str(text)}:
            return float(text)
        case {"complex": [real, imag]}:
            return complex(float(real), float(imag))
        case dict() if len(skeleton) == 1:
            return leaf(*next(iter(skeleton.items())))
        case None | bool() | int() | float() | str():
            return skeleton
        case _:
            raise Malformed(f"no tag in a skeleton: {str(skeleton)[:200]}")


class Channel:
    """One end of a stream socket, blocking, with a deadline per message.

    A receive that timed out loses nothing: the part that had arrived is kept for the next one.
    """

    def __init__(self, sock: socket.socket, limit: int = 65536) -> None:
        self._sock = sock
        self._limit = limit
        self._partial = bytearray()
        self._fds: list[int] = []

    @classmethod
    def from_fd(cls, fd: int, limit: int = 65536) -> Self:
        """A channel over an inherited descriptor, which the channel then owns."""
        return cls(socket.socket(fileno=fd), limit)

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = (), timeout: float | None = SEND_TIMEOUT) -> None:
        frame = encode(message, self._limit)
        self._sock.settimeout(timeout)
        try:
            if fds:
                frame = frame[socket.send_fds(self._sock, [frame], list(fds)) :]
            self._sock.sendall(frame)
        except TimeoutError as error:
            raise TimedOut(f"the receiver took no message for {timeout} s") from error
        except ConnectionError as error:  # whatever else goes wrong here says nothing about the other end
            raise Closed(f"cannot send: {error}") from error

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message, without descriptors."""
        return self._message(_deadline(timeout), want_fds=False)

    def receive_with_fds(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and the descriptors that came with it, close-on-exec; the caller owns them."""
        try:
            message = self._message(_deadline(timeout), want_fds=True)
        except (Closed, Malformed):
            self._drop_fds()
            raise
        fds, self._fds = self._fds, []
        return message, fds

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._drop_fds()
        self._sock.close()

    def _message(self, deadline: float | None, *, want_fds: bool) -> dict[str, Any]:
        self._fill(_HEADER.size, deadline, want_fds=want_fds)
        (size,) = _HEADER.unpack_from(self._partial)
        if size > self._limit:
            raise Malformed(f"a message of {size} bytes is announced, at most {self._limit} are taken")
        self._fill(_HEADER.size + size, deadline, want_fds=want_fds)
        body = bytes(self._partial[_HEADER.size :])
        self._partial.clear()
        return decode(body)

    def _fill(self, size: int, deadline: float | None, *, want_fds: bool) -> None:
        """Read until `size` bytes of the current frame are here; never beyond it."""
        while (missing := size - len(self._partial)) > 0:
            chunk = self._read(missing, deadline, want_fds=want_fds)
            if not chunk:
                raise Closed("the other end closed the channel")
            self._partial += chunk

    def _read(self, size: int, deadline: float | None, *, want_fds: bool) -> bytes:
        self._sock.settimeout(_left(deadline))
        try:
            if not want_fds:
                return self._sock.recv(size)
            return self._read_with_fds(size)
        except (TimeoutError, BlockingIOError) as error:  # a timeout of 0 makes the socket non-blocking
            raise TimedOut("no message in time") from error
        except ConnectionError as error:
            raise Closed(f"cannot receive: {error}") from error

    def _read_with_fds(self, size: int) -> bytes:
        room = socket.CMSG_LEN(MAX_FDS * _FD.size)
        chunk, ancillary, flags, _ = self._sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(data) - len(data) % _FD.size
                self._fds += [fd for (fd,) in _FD.iter_unpack(data[:whole])]
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise Malformed(f"more than {MAX_FDS} descriptors with one message")
        return chunk

    def _drop_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class AsyncChannel:
    """The same framing for the service's event loop; no descriptors. Bound a receive with `asyncio.timeout`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = 65536) -> None:
        self._reader = reader
        self._writer = writer
        self._limit = limit

    @classmethod
    async def from_socket(cls, sock: socket.socket, limit: int = 65536) -> Self:
        """A channel over one end of a socket pair, which the channel then owns."""
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, limit)

    async def send(self, message: Mapping[str, Any]) -> None:
        self._writer.write(encode(message, self._limit))
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise Closed(f"cannot send: {error}") from error

    async def receive(self) -> dict[str, Any]:
        """The next message. Cancelling a receive may lose the part that had arrived: close the channel then."""
        (size,) = _HEADER.unpack(await self._exactly(_HEADER.size))
        if size > self._limit:
            raise Malformed(f"a message of {size} bytes is announced, at most {self._limit} are taken")
        return decode(await self._exactly(size))

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed("the other end closed the channel") from error

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return  # it is closed either way
