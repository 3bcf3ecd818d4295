"""One candidate process, straight from the zygote: how it is spoken with, bounded, and how its end is read."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kernelverify.host import census
from kernelverify.host.candidate import BuildWanted, Crash, Job, Loaded, Ran
from kernelverify.host.memory import Region
from kernelverify.host.zygote import Zygote

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(180)]

MODEL = """\
import ctypes
import os
import sys
import threading
import time

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
{body}
"""
ENDLESS = "while True: time.sleep(60)"
NAMELESS = """\
files = [open('f', 'wb', 0)]
os.remove('f')
files[0].write(b'x' * (9 << 20))
"""


def _source(body: str) -> str:
    return MODEL.format(body="\n".join(" " * 8 + line for line in body.splitlines()))


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    for folder in (scratch, *scratch.parents):  # candidates have users of their own
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(0o755)
    with Zygote(scratch) as made:
        yield made


def _call(zygote: Zygote, source: str, timeout: float = 30.0, **more: object):
    """The outcome of one call on eight ones."""
    inputs = [torch.ones(8)]
    with zygote.spawn(Job(source=source, **more)) as process:
        loaded = process.load([], 1, None, 60)
        if not isinstance(loaded, Loaded):
            return loaded
        with Region.inputs(inputs) as given, Region.outputs([torch.empty(8)]) as wanted:
            return process.run(process.open(given, wanted), timeout)


def test_an_answer_is_a_private_copy_with_the_referees_time(zygote):
    ran = _call(zygote, _source("return x * 3"))

    assert isinstance(ran, Ran)
    assert torch.equal(ran.outputs[0], torch.full((8,), 3.0))
    assert ran.elapsed_s > 0
    assert ran.unwritten == ()


def test_its_weights_are_listed(zygote):
    source = (
        "import torch\n\n\nclass ModelNew(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 3)\n"
    )

    with zygote.spawn(Job(source=source)) as process:
        loaded = process.load([], 1, None, 60)

    assert loaded == Loaded((("weight", (3, 2), "float32"), ("bias", (3,), "float32")))


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("raise ValueError('of its own')", "exception", "of its own"),
        ("os._exit(0)", "exit", "exit code 0"),
        ("os._exit(7)", "exit", "exit code 7"),
        ("ctypes.string_at(0)", "signal", "SIGSEGV"),
        ("os.kill(os.getpid(), 6)", "signal", "SIGABRT"),
        (ENDLESS, "timeout", "no answer within 1 s"),
        ("while True: pass", "timeout", "no answer within 1 s"),
        ("b = []\nwhile True: b.append(torch.ones(1 << 22))", "memory", "MiB of memory"),
        ("for n in range(9): open(f'{n}', 'wb').write(b'x' * (1 << 20))\n" + ENDLESS, "disk", "MiB of files"),
        (NAMELESS + ENDLESS, "disk", "MiB of files"),
    ],
)  # fmt: skip
def test_its_end_is_read_from_outside(zygote, body, kind, told):
    limits = census.Limits(memory_bytes=1 << 30, tasks=32, disk_bytes=8 << 20)
    timeout = 1 if kind == "timeout" else 30

    crash = _call(zygote, _source(body), timeout, limits=limits)

    assert isinstance(crash, Crash), crash
    assert (crash.kind, crash.stage) == (kind, "forward")
    assert told in crash.message


def test_it_gets_no_more_tasks_than_allowed(zygote):
    body = f"for _ in range(40): threading.Thread(target=time.sleep, args=(60,)).start()\n{ENDLESS}"

    crash = _call(zygote, _source(body), limits=census.Limits(tasks=32))

    # with a user of its own the kernel refuses the next one, otherwise the referee counts and kills
    assert (crash.kind, crash.type) in {("exception", "RuntimeError"), ("tasks", "")}


def test_the_line_of_a_crash_is_known(zygote):
    """Of the last words of a dead candidate none are waited for long: on a busy machine they come too late at times."""
    crashes = [_call(zygote, _source("y = x + 1\nctypes.string_at(0)")) for _ in range(3)]

    assert {crash.line for crash in crashes} - {None} == {13}


def test_what_fails_at_import_is_no_failure_of_forward(zygote):
    crash = _call(zygote, "import torch\nraise RuntimeError('early')\n")

    assert (crash.kind, crash.stage, crash.line) == ("exception", "import", 2)


@pytest.mark.parametrize(
    "message",
    [b"no frame at all!", b"\0\0\0\2{}", b"\0\0\0\x19" + b'{"event":"done","nonce":0}'[:25], b"\xff\xff\xff\xff"],
    ids=["noise", "empty", "truncated", "endless"],
)
def test_words_of_its_own_on_the_channel_end_it(zygote, message):
    """Whatever descriptor the channel has, it is found by trying them all."""
    body = f"for fd in range(3, 64):\n    try: os.write(fd, {message!r})\n    except OSError: pass\n" + ENDLESS

    crash = _call(zygote, _source(body), 5)

    assert isinstance(crash, Crash)
    assert crash.kind in {"protocol", "timeout"}


def test_a_wanted_build_ends_the_process(zygote):
    source = (
        "from torch.utils.cpp_extension import load_inline\n"
        "import torch\n"
        "built = load_inline('k', 'torch::Tensor f(torch::Tensor x) { return x; }', functions=['f'])\n"
        "class ModelNew(torch.nn.Module): pass\n"
    )

    with zygote.spawn(Job(source=source)) as process:
        wanted = process.load([], 1, None, 60)
        later = process.load([], 1, None, 60)

    assert isinstance(wanted, BuildWanted)
    assert "torch::Tensor f" in str(wanted.request)
    assert isinstance(later, Crash)


def test_a_paused_candidate_stands_still_with_all_it_started(zygote):
    body = "if os.fork() == 0:\n    while True: time.sleep(0.001)\nreturn x"
    with (
        zygote.spawn(Job(source=_source(body))) as process,
        Region.inputs([torch.ones(8)]) as given,
        Region.outputs([torch.empty(8)]) as wanted,
    ):
        process.load([], 1, None, 60)
        slot = process.open(given, wanted)
        process.run(slot, 30)

        process.pause()
        paused = _states(process.pid, lambda states: set(states) == {"T"})
        again = process.run(slot, 30)

    assert len(paused) == 2
    assert set(paused) == {"T"}
    assert isinstance(again, Ran)


def test_nothing_of_it_stays(zygote):
    body = "for _ in range(3):\n    if os.fork() == 0:\n        while True: time.sleep(60)\nreturn x"
    with (
        zygote.spawn(Job(source=_source(body))) as process,
        Region.inputs([torch.ones(8)]) as given,
        Region.outputs([torch.empty(8)]) as wanted,
    ):
        process.load([], 1, None, 60)
        process.run(process.open(given, wanted), 30)
        pid, folder = process.pid, process._workdir
        alive = _states(pid, lambda states: len(states) == 4)

    assert len(alive) == 4
    assert _states(pid, lambda states: not states) == []
    assert not folder.exists()


def test_two_candidates_have_different_users_and_folders(zygote):
    with zygote.spawn(Job(source=_source("return x"))) as one, zygote.spawn(Job(source=_source("return x"))) as other:
        assert one._workdir != other._workdir
        assert one._uid is None or one._uid != other._uid


def test_a_dead_zygote_is_replaced(zygote):
    zygote.start()
    os.kill(zygote._process.pid, signal.SIGKILL)
    zygote._process.wait()

    assert isinstance(_call(zygote, _source("return x")), Ran)


def _states(group: int, settled: Callable[[list[str]], bool]) -> list[str]:
    """State letters of a process group's living members, once they have settled, or after a while if they never do."""
    end = time.monotonic() + 20
    while not settled(found := _members(group)) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def _members(group: int) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[2]) == group and fields[0] != "Z":
            found.append(fields[0])
    return found
