"""The folder of a search: locked, never half written, nothing thrown away; and the process that a search owns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernelsearch.cli import folder, local
from kernelsearch.cli.folder import BestKept, Folder, FolderBusyError, FolderUnusableError, KeptClock, StatusFile
from kernelsearch.report import best
from kernelsearch.search import archive
from kernelsearch.search.ports import InfrastructureError, LiveSpec
from waiting import until

SERVER = """
import signal, socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
if "--refuse" in sys.argv:
    print("error: --device cuda is not available yet", file=sys.stderr)
    sys.exit(2)
if "--crash" in sys.argv:
    print("something else", flush=True)
    raise RuntimeError("no port left")
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = socket.create_server(("127.0.0.1", port))
print(f"listening on http://127.0.0.1:{held.getsockname()[1]}", flush=True)
print("x" * 200_000, flush=True)
time.sleep(600)
"""


# ---- the folder ----


def test_a_folder_admits_one_process(tmp_path):
    with Folder(tmp_path / "out"), pytest.raises(FolderBusyError, match=f"process {os.getpid()} runs"):
        Folder(tmp_path / "out").__enter__()


def test_a_folder_can_be_used_again(tmp_path):
    for _ in range(2):
        with Folder(tmp_path):
            pass


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "out").write_text("")

    with pytest.raises(FolderUnusableError, match="give another directory to --out"):
        Folder(tmp_path / "out").__enter__()


def test_what_was_there_is_set_aside_and_never_thrown_away(tmp_path):
    with Folder(tmp_path) as used:
        assert used.set_aside() is None
        for text in ("first", "second"):
            used.journal.write_text(text)
            used.set_aside()

        assert not used.journal.exists()
    assert (tmp_path / "earlier/1/journal.jsonl").read_text() == "first"
    assert (tmp_path / "earlier/2/journal.jsonl").read_text() == "second"


def kept_clock(folder_: Path, used: float = 0.0) -> KeptClock:
    return KeptClock(folder_ / "clock", local.MonotonicClock(used))


async def test_facts_become_a_file_and_stopping_is_one_heartbeat_away(tmp_path):
    status = StatusFile(tmp_path / "status.json", LiveSpec(deadline=60.0), kept_clock(tmp_path))

    assert await status.publish({"sequence": 1}) == LiveSpec(deadline=60.0)
    status.stop()
    assert (await status.publish({"sequence": 2})).stop
    assert json.loads((tmp_path / "status.json").read_text()) == {"sequence": 2}


async def test_a_disk_that_takes_no_facts_is_the_infrastructures_fault(tmp_path):
    with pytest.raises(InfrastructureError, match="make room"):
        await StatusFile(tmp_path / "none" / "status.json", LiveSpec(60.0), kept_clock(tmp_path)).publish({})


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    folder.write_whole(tmp_path / "a", "1")
    (tmp_path / ".a.new").mkdir()

    with pytest.raises(InfrastructureError):
        folder.write_whole(tmp_path / "a", "2")
    assert (tmp_path / "a").read_text() == "1"


async def test_the_best_is_kept_when_it_gets_better(tmp_path):
    kept = BestKept(Folder(tmp_path), best.Origin("x", "import torch"))

    await kept.append({"attempt": 1, "source": "one"})
    await kept.keep_best({"attempt": 1, "source": "one"})
    await kept.append({"attempt": 2, "source": "two"})

    assert (tmp_path / "best/kernel.py").read_text() == "one"
    assert len(list(archive.read(tmp_path / "attempts"))) == 2


async def test_an_archive_that_is_full_does_not_take_the_best_with_it(tmp_path):
    (tmp_path / "attempts").write_text("in the way")
    kept = BestKept(Folder(tmp_path), best.Origin("x", "import torch"))

    with pytest.raises(InfrastructureError):
        await kept.append({"attempt": 1, "source": "one"})
    await kept.keep_best({"attempt": 1, "source": "one", "prompt": ""})

    assert (tmp_path / "best/kernel.py").read_text() == "one"


async def test_a_best_kernel_that_an_earlier_process_found_is_kept_with_its_report(tmp_path):
    kept = BestKept(Folder(tmp_path), best.Origin("x", "import torch"))
    await kept.append({"attempt": 1, "source": "one", "full": {"status": "correct"}})

    await kept.keep_best({"attempt": 1, "source": "one"})

    assert json.loads((tmp_path / "best/report.json").read_text()) == {"status": "correct"}


# ---- the clock ----


def test_the_search_clock_stands_until_it_is_started():
    clock = local.MonotonicClock(used=100.0)
    assert clock.now() == 100.0

    clock.start()
    time.sleep(0.01)
    assert 100.0 < clock.now() < 160.0


async def test_each_publication_keeps_the_clock(tmp_path):
    status = StatusFile(tmp_path / "status.json", LiveSpec(deadline=600.0), kept_clock(tmp_path, used=123.4))

    await status.publish({})

    assert folder.seconds_kept(tmp_path / "clock") == 123.4


@pytest.mark.parametrize("text", [None, "", "soon", "nan", "-5", "inf"])
def test_a_clock_that_cannot_be_read_counts_as_none(tmp_path, text):
    if text is not None:
        (tmp_path / "clock").write_text(text)

    assert folder.seconds_kept(tmp_path / "clock") == 0.0


# ---- the verifier ----


@pytest.fixture
def own(tmp_path):
    """Makes a supervised stand-in for `kernelverify serve`."""
    (tmp_path / "serve.py").write_text(SERVER)
    said: list[str] = []

    def make(*options: str) -> tuple[local.LocalVerifier, list[str]]:
        command = (sys.executable, str(tmp_path / "serve.py"), *options)
        return local.LocalVerifier(command, tmp_path / "verifier.log", said.append, first_delay=0.05), said

    return make


async def test_it_tells_where_it_listens_and_ends_in_order(own):
    verifier, said = own()

    assert (await verifier.start()).startswith("http://127.0.0.1:")
    await verifier.stop()

    assert verifier._process.returncode == -signal.SIGTERM
    assert said == []


async def test_one_that_dies_comes_back_where_it_was(own, tmp_path):
    verifier, said = own()
    url = await verifier.start()
    first = verifier._process

    first.kill()
    await until(lambda: (tmp_path / "verifier.log").read_text().count(f"listening on {url}\n") == 2)
    await until(lambda: verifier._process is not first)  # which may come after its first word

    assert (verifier.url, verifier._process.returncode) == (url, None)
    assert "was ended by SIGKILL; starting it again" in said[0]
    await verifier.stop()


async def test_one_that_ignores_its_end_is_killed(own):
    verifier, _ = own("--deaf")
    await verifier.start()

    await verifier.stop(patience=0.2)

    assert verifier._process.returncode == -signal.SIGKILL


async def test_one_that_refuses_its_options_speaks_for_itself(own):
    verifier, _ = own("--refuse")

    with pytest.raises(local.VerifierUsageError, match="cuda is not available yet"):
        await verifier.start()
    await verifier.stop()


async def test_one_that_crashes_at_once_is_told_with_its_last_words(own):
    verifier, _ = own("--crash")

    with pytest.raises(InfrastructureError, match=r"before it listened: RuntimeError: no port left; its log is"):
        await verifier.start()
    await verifier.stop()


async def test_a_command_that_is_not_there_is_told(tmp_path):
    verifier = local.LocalVerifier((str(tmp_path / "none"),), tmp_path / "log", print)

    with pytest.raises(InfrastructureError, match="cannot be started"):
        await verifier.start()


async def test_what_it_says_goes_to_the_log_however_much_it_is(own, tmp_path):
    verifier, _ = own()
    await verifier.start()

    await until(lambda: (tmp_path / "verifier.log").stat().st_size >= 200_000)
    await verifier.stop()


OWNER = """
import asyncio, sys
from pathlib import Path
from kernelsearch.cli import local

async def main():
    verifier = local.LocalVerifier((sys.executable, sys.argv[1]), Path(sys.argv[2]), print)
    await verifier.start()
    print(verifier._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.needs("linux")
def test_it_does_not_outlive_a_search_that_is_killed(tmp_path):
    (tmp_path / "serve.py").write_text(SERVER)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "serve.py"), str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        child = int(owner.stdout.readline())
        assert alive(child)

        owner.kill()

    end = time.monotonic() + 60
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)
