"""Messages: what one end sends the other gets, and what hostile code sends is refused without harm."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelverify import ipc

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(st.text(), VALUES, max_size=5)


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    a, b = ipc.Channel(left), ipc.Channel(right)
    yield a, b
    a.close()
    b.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def raw_frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


@given(message=MESSAGES)
def test_every_plain_message_arrives_as_it_was_sent(message):
    text_safe = json.loads(json.dumps(message).encode("utf-8", "replace"))

    assert ipc.decode(ipc.encode(message, 1 << 20)[4:]) == text_safe


@given(body=st.binary(max_size=200))
def test_bytes_from_anywhere_are_a_message_or_malformed(body):
    with contextlib.suppress(ipc.Malformed):
        assert isinstance(ipc.decode(body), dict)


def test_messages_keep_their_order_and_their_borders(ends):
    a, b = ends

    for n in range(5):
        a.send({"n": n, "fill": "x" * n * 1000})

    assert [b.receive(1)["n"] for _ in range(5)] == list(range(5))


def test_a_lone_surrogate_is_replaced_instead_of_stopping_the_sender(ends):
    a, b = ends

    a.send({"text": "bad \udc80 text"})

    assert b.receive(1) == {"text": "bad ? text"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"7",
        b"null",
        b"\xff\xfe",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100 + b"]" * 100 + b"}",
        b"[" * 60000,
    ],
    ids=["empty", "cut", "list", "number", "null", "not utf-8", "nan", "infinity", "huge int", "deep", "very deep"],
)
def test_what_is_no_message_is_malformed(ends, body):
    a, b = ends
    a._sock.sendall(raw_frame(body))

    with pytest.raises(ipc.Malformed):
        b.receive(1)


def test_an_announced_oversize_message_is_refused_before_it_is_read(ends):
    a, b = ends
    a._sock.sendall(struct.pack("!I", 1 << 30))

    with pytest.raises(ipc.Malformed, match="1073741824 bytes"):
        b.receive(1)


def test_an_oversize_message_is_refused_at_the_sender(ends):
    with pytest.raises(ipc.Malformed, match="limit of 65536"):
        ends[0].send({"text": "x" * 70000})


def test_a_silent_end_times_out(ends):
    with pytest.raises(ipc.TimedOut):
        ends[1].receive(0.01)


def test_a_timeout_of_zero_polls(ends):
    a, b = ends
    with pytest.raises(ipc.TimedOut):
        b.receive(0)

    a.send({"n": 1})

    assert b.receive(0) == {"n": 1}


def test_half_a_message_times_out_and_is_completed_later(ends):
    a, b = ends
    frame = raw_frame(b'{"n":1}')
    a._sock.sendall(frame[:6])
    with pytest.raises(ipc.TimedOut):
        b.receive(0.01)

    a._sock.sendall(frame[6:])

    assert b.receive(1) == {"n": 1}


def test_a_trickle_of_bytes_does_not_renew_the_deadline(ends):
    a, b = ends
    a._sock.sendall(struct.pack("!I", 1000))
    stop = threading.Event()

    def trickle():
        while not stop.wait(0.02):
            a._sock.sendall(b" ")

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises(ipc.TimedOut):
            b.receive(0.2)
    finally:
        stop.set()
        sender.join()


def test_a_closed_end_is_closed_for_both_directions(ends):
    a, b = ends
    a.close()

    with pytest.raises(ipc.Closed):
        b.receive(1)
    with pytest.raises(ipc.Closed):
        b.send({})


def test_a_receiver_that_does_not_read_cannot_hold_the_sender(ends):
    a, _ = ends

    def flood():
        while True:
            a.send({"text": "x" * 60000}, timeout=0.05)

    with pytest.raises(ipc.TimedOut):
        flood()


def test_descriptors_arrive_with_their_message(ends):
    a, b = ends
    read, write = os.pipe()
    a.send({"n": 1})
    a.send({"n": 2}, fds=[write])
    os.close(write)

    assert b.receive_with_fds(1) == ({"n": 1}, [])
    message, (got,) = b.receive_with_fds(1)

    os.write(got, b"hello")
    assert message == {"n": 2}
    assert os.read(read, 5) == b"hello"
    assert not os.get_inheritable(got)
    os.close(got)
    os.close(read)


def test_descriptors_nobody_asked_for_are_dropped(ends):
    a, b = ends
    before = open_descriptors()
    a.send({"n": 1}, fds=[0, 0, 0])

    assert b.receive(1) == {"n": 1}
    assert open_descriptors() == before


def test_too_many_descriptors_are_malformed_and_none_leaks(ends):
    a, b = ends
    before = open_descriptors()
    socket.send_fds(a._sock, [raw_frame(b"{}")], [0] * 40)

    with pytest.raises(ipc.Malformed, match="descriptors"):
        b.receive_with_fds(1)
    assert open_descriptors() == before


def test_from_fd_owns_the_descriptor():
    left, right = socket.socketpair()
    a, b = ipc.Channel.from_fd(left.detach()), ipc.Channel.from_fd(right.detach())

    a.send({"n": 1})

    assert b.receive(1) == {"n": 1}
    a.close()
    b.close()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    SCALARS | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def refuse(*args):
    raise TypeError(args)


@given(tree=TREES)
def test_a_tree_comes_back_from_its_skeleton_with_every_type(tree):
    skeleton = json.loads(json.dumps(ipc.pack_tree(tree, refuse), allow_nan=False))

    back = ipc.unpack_tree(skeleton, refuse)

    assert repr(back) == repr(tree)


def test_other_leaves_are_the_callers_affair():
    skeleton = ipc.pack_tree([{"a": range(3)}], lambda value: {"range": len(value)})

    assert skeleton == [{"dict": [["a", {"range": 3}]]}]
    assert ipc.unpack_tree(skeleton, lambda tag, n: (tag, n)) == [{"a": ("range", 3)}]


def test_an_untagged_object_in_a_skeleton_is_malformed():
    with pytest.raises(ipc.Malformed, match="no tag"):
        ipc.unpack_tree({"a": 1, "b": 2}, refuse)


async def async_pair(limit: int = 65536):
    left, right = socket.socketpair()
    return await ipc.AsyncChannel.from_socket(left, limit), ipc.Channel(right, limit)


async def test_the_async_channel_speaks_the_same_protocol():
    a, b = await async_pair()

    await a.send({"n": 1})
    b.send({"n": 2})

    assert b.receive(1) == {"n": 1}
    assert await a.receive() == {"n": 2}
    await a.close()
    b.close()


async def test_the_async_channel_refuses_oversize_and_notices_the_end():
    a, b = await async_pair(limit=100)
    b._sock.sendall(struct.pack("!I", 101))
    with pytest.raises(ipc.Malformed):
        await a.receive()
    b.close()

    with pytest.raises(ipc.Closed):
        await asyncio.wait_for(a.receive(), 1)
    await a.close()
