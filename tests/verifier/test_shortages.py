"""What the machine lacks is infrastructure, with its name and a remedy; what a candidate uses up itself is its own."""

import errno
import mmap
import os
import re
import socket
import subprocess
import threading

import pytest
import torch

from kernelverify import ipc, resources
from kernelverify.build import compiler, toolchain
from kernelverify.build.compiler import CompilerError, Workshop
from kernelverify.guest import zygote as guest_zygote
from kernelverify.host import census, memory, problem, session, users
from kernelverify.host.baseline import Baseline
from kernelverify.host.candidate import Crash, Job, Ran
from kernelverify.host.memory import Region
from kernelverify.host.referee import Referee
from kernelverify.host.zygote import Zygote
from kernelverify.resources import HostError
from kernelverify_api.request import Evaluation, Problem

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(180)]

REFERENCE = """\
import errno

import torch


class Model(torch.nn.Module):
    def forward(self, x):
        {forward}
        return x + 1


def get_inputs():
    {inputs}
    return [torch.randn(100)]


def get_baselines():
    def greedy(x):
        raise MemoryError

    return {{"greedy": greedy}}
"""
MAP_NORESERVE, MADV_NOHUGEPAGE = 0x4000, 15
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes. Error code 12"
KERNEL = """\
import errno
import os

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        {body}
        return x + 1
"""
FILLING = "open('much', 'wb').write(b'x' * (64 << 20))"
NAMELESS = f"os.file = open('much', 'wb', 0); os.remove('much'); os.file.write(bytes(1 << 25)); {FILLING}"


def _problem(forward: str = "pass", inputs: str = "pass") -> Problem:
    return Problem(source=REFERENCE.format(forward=forward, inputs=inputs), name="tiny")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), resources.MEMORY),
        (RuntimeError(NO_MEMORY), resources.MEMORY),
        (RuntimeError("can't start new thread"), resources.PROCESSES),
        (OSError(errno.ENOSPC, "No space left on device"), resources.DISK),
        (OSError(errno.EMFILE, "Too many open files"), resources.DESCRIPTORS),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), resources.PROCESSES),
        (RuntimeError("sizes differ"), ""),
        (FileNotFoundError(errno.ENOENT, "No such file"), ""),
        (ValueError(NO_MEMORY), ""),
    ],
    ids=str,
)
def test_a_shortage_is_known_by_its_number_or_by_torchs_words(error, told):
    assert resources.shortage(error) == told


def test_what_the_judge_cannot_write_names_the_settings():
    with (
        pytest.raises(HostError, match=r"a check failed: .*denied.*set TMPDIR and KERNELVERIFY_CACHE"),
        resources.own("a check"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_mistake_of_ours_stays_one():
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), resources.own("a check"):
        raise RuntimeError("sizes differ")


# ---- the reference ----


@pytest.mark.parametrize(
    "broken",
    [
        _problem(inputs="raise MemoryError"),
        _problem(inputs="raise OSError(errno.ENOSPC, 'No space left on device')"),
        _problem(forward=f'raise RuntimeError("{NO_MEMORY}")'),
        _problem(forward="if x.dtype is torch.float64: raise MemoryError"),
        _problem(forward='import threading; raise RuntimeError("can\'t start new thread")'),
    ],
    ids=["inputs", "files of inputs", "eager", "fp64", "threads"],
)
def test_no_room_for_a_draw_is_not_the_problems_fault(broken):
    with pytest.raises(HostError, match=r"in the judge: .*; (give|make|raise) "):
        session.Session(broken, seed=1).draw("own")


def test_no_room_for_a_flipped_draw_drops_no_gate():
    made = session.Session(_problem(forward="if (x < 0).sum() < 0: pass"), seed=1)
    made.draw("own")
    made.loaded = problem.load(_problem(forward="raise MemoryError"))
    made.model = made.loaded.make_model(1)

    with pytest.raises(HostError):
        made.draw("flipped")

    assert not made.dropped


def test_a_tensor_larger_than_all_memory_is_the_problems_fault():
    with pytest.raises(problem.ProblemError, match="tried to allocate") as caught:
        session.Session(_problem(inputs="torch.empty(1 << 50)"), seed=1).draw("own")

    assert caught.value.line == 13


def test_no_memory_for_a_baseline_is_not_the_problems_fault():
    x = torch.randn(100)
    with Baseline(threads=1) as base, Region.inputs([x]) as given, Region.outputs(x) as outputs:
        base.start(_problem(), 1, ["greedy"])
        base.open(0, given, outputs)
        with pytest.raises(HostError, match=resources.MEMORY):
            base.run(0, "greedy")


# ---- the referee ----


@pytest.fixture(scope="module")
def zygote(workplace):
    with Zygote(workplace) as made:
        yield made


@pytest.mark.parametrize(
    ("place", "name", "number", "told"),
    [
        (os, "memfd_create", errno.EMFILE, resources.DESCRIPTORS),
        (memory.mmap, "mmap", errno.ENOMEM, resources.MEMORY),
        (os, "ftruncate", errno.ENOSPC, resources.DISK),
        (os, "pipe", errno.ENFILE, resources.DESCRIPTORS),
        (threading.Thread, "start", errno.EAGAIN, resources.PROCESSES),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_referee_lacks_is_named(workplace, monkeypatch, place, name, number, told):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    asked = Evaluation(problem=_problem(), source=KERNEL.format(body="pass"))
    judge = Referee(workplace, threads=1)
    try:
        judge.start()
        monkeypatch.setattr(place, name, refuse)
        with pytest.raises(HostError, match=re.escape(f"{os.strerror(number)}: {told}")):
            judge.evaluate("id", asked, {}, lambda _: None)
    finally:
        monkeypatch.undo()
        judge.close()


def test_a_message_that_cannot_be_sent_says_nothing_of_the_receiver():
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(OSError, match="Bad file descriptor"):
        ipc.Channel(ours).send({"op": "open"}, [987_654])
    ours.close()


def test_only_a_taken_id_is_taken_for_one(monkeypatch):
    class Full(socket.socket):
        def bind(self, _):
            raise OSError(errno.ENOBUFS, "No buffer space available")

    monkeypatch.setattr(users.identity, "can_change", lambda: True)
    monkeypatch.setattr(users.socket, "socket", Full)

    with pytest.raises(OSError, match="No buffer space available"):
        users.User()


# ---- a candidate ----


def _call(zygote: Zygote, body: str, before=lambda _: None, **job: object) -> object:
    with zygote.spawn(Job(source=KERNEL.format(body=body), **job)) as process:
        process.load([], 1, None, 60)
        with Region.inputs([torch.ones(8)]) as given, Region.outputs([torch.empty(8)]) as wanted:
            slot = process.open(given, wanted)
            before(process)
            return process.run(slot, 30)


@pytest.fixture
def little_disk(tmp_path):
    """A zygote whose candidates find 48 MiB of disk."""
    place = tmp_path / "scratch"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "tmpfs", str(place)], check=True)
    for folder in (place, *list(place.parents)[:3]):
        folder.chmod(0o755)
    try:
        with Zygote(place) as made:
            yield made, place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.needs("root")
def test_a_disk_that_others_filled_is_not_the_candidates_fault(little_disk):
    made, place = little_disk

    def fill(_process):
        (place / "of-others").write_bytes(bytes(40 << 20))

    with pytest.raises(HostError, match=r"there was no room for it: \d+ MiB below .*make room"):
        _call(made, FILLING, fill)
    with pytest.raises(HostError, match=r"no room for a candidate: .*make room"):
        _call(made, "pass")


@pytest.mark.needs("root")
@pytest.mark.parametrize("filling", [FILLING, NAMELESS], ids=["named", "nameless"])
def test_a_disk_that_it_filled_itself_is(little_disk, filling):
    crash = _call(little_disk[0], filling)

    assert isinstance(crash, Crash)
    assert (crash.kind, crash.type) == ("exception", "OSError")


@pytest.fixture
def kills(monkeypatch):
    """A function after which the kernel has ended one more process for lack of memory."""
    count = [0]
    monkeypatch.setattr(resources, "out_of_memory_kills", lambda: count[0])
    return lambda _: count.append(count.pop() + 1)


KILLED = "os.kill(os.getpid(), 9)"


def test_a_small_candidate_that_the_kernel_killed_for_memory_is_not_to_blame(zygote, kills):
    with pytest.raises(HostError, match=r"ended a candidate that held \d+ MiB of the \d+ MiB.*give the verifier more"):
        _call(zygote, KILLED, kills)


def test_a_large_one_is(zygote, kills, monkeypatch):
    monkeypatch.setattr(resources, "memory", lambda: 64 << 20)

    crash = _call(zygote, KILLED, kills)

    assert (crash.kind, crash.stage) == ("memory", "forward")
    assert "when the machine's memory ran out" in crash.message


def test_what_its_children_hold_is_its_own(zygote, kills, monkeypatch):
    """The kernel may end a small process whose children are large."""
    monkeypatch.setattr(census, "held", lambda *_: 1 << 30)

    crash = _call(zygote, KILLED, kills, limits=census.Limits(memory_bytes=2 << 30))

    assert (crash.kind, crash.stage) == ("memory", "forward")


def test_a_kill_of_its_own_excuses_nothing(zygote):
    crash = _call(zygote, KILLED)

    assert (crash.kind, crash.type) == ("signal", "SIGKILL")


@pytest.mark.parametrize(
    "body",
    [
        "raise MemoryError",
        f'raise RuntimeError("{NO_MEMORY}")',
        "raise OSError(errno.ENOSPC, 'No space left on device')",
    ],
)
def test_its_own_words_about_a_shortage_excuse_nothing(zygote, body):
    crash = _call(zygote, body)

    assert isinstance(crash, Crash)
    assert crash.kind == "exception"


def test_arguments_that_cannot_be_mapped_are_not_its_fault(zygote, monkeypatch):
    """They are taken before anything of its own runs, so that it cannot forge this."""
    read, write = os.pipe()
    plain = Region.inputs

    def unmappable(tree, *, writable=False):
        region = plain(tree, writable=writable)
        os.dup2(read, region.fd)
        return region

    with zygote.spawn(Job(source=KERNEL.format(body="pass"))) as process:
        monkeypatch.setattr(Region, "inputs", unmappable)
        with pytest.raises(HostError, match=r"could not take its arguments: .*more memory"):
            process.load([], 1, None, 60)
    os.close(read)
    os.close(write)


FORGED_STAGE = """\
import sys

frame = sys._getframe()
while not hasattr(frame.f_locals.get("self"), "_stage"):
    frame = frame.f_back
frame.f_locals["self"]._stage = "start"
raise OSError(12, "Cannot allocate memory")
"""


def test_a_stage_of_its_own_invention_excuses_nothing(zygote):
    with zygote.spawn(Job(source=FORGED_STAGE)) as process:
        crash = process.load([], 1, None, 60)

    assert (crash.kind, crash.stage, crash.type) == ("exception", "start", "OSError")


@pytest.mark.parametrize("forks", [0, 1], ids=["first", "second"])
def test_a_zygote_without_room_for_a_process_says_so_and_lives(monkeypatch, forks):
    me, fork = os.getpid(), os.fork

    def refused():
        if forks == 0 or os.getpid() != me:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(guest_zygote, "threads", lambda: 1)
    monkeypatch.setattr(os, "fork", refused)
    answer = guest_zygote._answer(None, {"nonce": "n", "config": {}}, [])

    assert answer["event"] == "error"
    assert resources.PROCESSES in answer["message"]


def test_many_threads_of_ours_leave_a_candidate_its_tasks(workplace, monkeypatch):
    """A verifier on 400 cores gives each candidate 400 threads: they are not what it may start itself."""
    jobs = []

    def spawn(_self, job):
        jobs.append(job)
        raise HostError("enough is seen")

    monkeypatch.setattr(Zygote, "spawn", spawn)
    threads = torch.get_num_threads()
    with pytest.raises(HostError, match="enough is seen"):
        Referee(workplace, 400).evaluate("id", Evaluation(problem=_problem(), source="x"), {}, lambda _: None)
    torch.set_num_threads(threads)

    assert jobs[0].limits.tasks == census.Limits.tasks + 400


def test_the_candidate_is_still_judged_where_there_is_room(zygote):
    assert isinstance(_call(zygote, "pass"), Ran)


# ---- compilers ----


async def _ran(*argv: str) -> str:
    with Workshop(toolchain.find()) as shop:
        return await shop.run(argv)


async def test_a_tool_that_fails_where_it_had_room_is_the_sources_fault():
    with pytest.raises(CompilerError, match="No space left"):
        await _ran("sh", "-c", "echo error: No space left on device; exit 1")


async def test_a_tool_that_cannot_start_is_not():
    with pytest.raises(HostError, match=r"no-such-tool does not start: .*No such file"):
        await _ran("no-such-tool")


async def test_a_tool_that_the_kernel_killed_for_memory_is_not(kills, monkeypatch):
    read = compiler._first_of

    async def after(stream):
        kills(None)
        return await read(stream)

    monkeypatch.setattr(compiler, "_first_of", after)

    with pytest.raises(HostError, match=r"memory ran out while sh ran: .*give the verifier more"):
        await _ran("sh", "-c", "kill -9 $$")


@pytest.mark.needs("root")
async def test_a_tool_on_a_full_disk_is_not(little_disk, monkeypatch):
    _, place = little_disk
    monkeypatch.setattr("tempfile.tempdir", str(place))
    (place / "of-others").write_bytes(bytes(40 << 20))

    with pytest.raises(HostError, match=r"false had no room to work: .*make room"):
        await _ran("false")


def test_page_tables_are_memory():
    before = census.held(os.getpid(), None, ())

    with mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE) as much:
        much.madvise(MADV_NOHUGEPAGE)
        for place in range(0, len(much), 2 << 20):
            much[place]

        assert census.held(os.getpid(), None, ()) - before > 100 << 20


async def test_a_tool_meets_its_own_limit_of_memory_before_the_machines():
    kilobytes = int(await _ran("sh", "-c", "ulimit -v"))

    assert kilobytes * 1024 <= max(compiler.LEAST_MEMORY, resources.memory())


@pytest.mark.parametrize(("lacking", "told"), [("nm", "install a C"), ("Python.h", "python3-dev")])
def test_a_toolchain_without_one_of_its_parts_is_told_before_a_source_is_blamed(monkeypatch, tmp_path, lacking, told):
    toolchain.find.cache_clear()
    which = toolchain.shutil.which
    if lacking == "nm":
        monkeypatch.setattr(toolchain.shutil, "which", lambda name: None if name == "nm" else which(name))
    else:
        monkeypatch.setattr(toolchain.sysconfig, "get_path", lambda _: str(tmp_path))

    with pytest.raises(HostError, match=told):
        toolchain.find()
