"""A real process with the real journal and archive, killed by SIGKILL at random instants and started again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from kernelsearch.search import archive

ATTEMPTS = 60
KILLS = 6
CHAINS = 4
SCRIPT = Path(__file__).parent.parent / "killable.py"


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, SCRIPT, folder, str(ATTEMPTS)], stderr=subprocess.PIPE, text=True)


def published(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "facts.jsonl").read_text().splitlines()]


def kill_soon(folder: Path, after: float) -> None:
    """Start it, wait until it runs, and kill it so much later."""
    facts = folder / "facts.jsonl"
    facts.touch()
    before = facts.stat().st_size
    child = start(folder)
    while child.poll() is None and facts.stat().st_size == before:
        time.sleep(0.005)
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a search leaves that was killed some times and then ran to its end."""
    folder = tmp_path_factory.mktemp("killed")
    random = Random(7)
    for _ in range(KILLS):
        kill_soon(folder, random.uniform(0.0, 0.12))
    last = start(folder)
    _, errors = last.communicate(timeout=240)
    assert last.returncode == 0, errors
    return folder


def test_it_comes_to_its_end(folder):
    final = published(folder)[-1]

    assert final["outcome"]["reason"] == "AttemptsExhausted"
    assert final["attempts"]["total"] == ATTEMPTS


def test_nothing_published_falls_back(folder):
    facts = published(folder)

    for figures in (
        [each["attempts"]["total"] for each in facts],
        [float(each["best"]["speedup"]) for each in facts if "best" in each],
        [each["sequence"] for each in facts],
    ):
        assert figures == sorted(figures)


def test_no_id_is_repeated(folder):
    started = (folder / "started").read_text().split()

    assert len(started) == len(set(started))


def test_only_attempts_in_flight_are_lost(folder):
    started = (folder / "started").read_text().split()

    assert ATTEMPTS <= len(started) <= ATTEMPTS + KILLS * CHAINS


def test_the_archive_misses_at_most_what_was_being_written(folder):
    archived = [record["attempt"] for record in archive.read(folder / "attempts")]

    assert len(archived) == len(set(archived))
    assert len(archived) >= ATTEMPTS - KILLS * CHAINS
