"""No two candidates on one machine have the same user, and nothing of a killed verifier stays."""

import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kernelverify import scratch
from kernelverify.host import census
from kernelverify.host.users import NoUserError, User

pytestmark = pytest.mark.needs("linux", "root")
NOBODY = 65_534


def test_an_id_is_given_once():
    among = range(30_000, 30_002)
    with User(among) as first, User(among) as second:
        assert {first.uid, second.uid} == set(among)
        with pytest.raises(NoUserError, match="30000 to 30001"):
            User(among)


def test_another_process_cannot_have_it_either():
    among = range(30_010, 30_011)
    ask = "from kernelverify.host.users import *\ntry: User(range(30010, 30011))\nexcept NoUserError: print('taken')"
    with User(among):
        told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout

    assert told == "taken\n"


def test_a_released_id_can_be_had_again():
    among = range(30_020, 30_021)
    User(among).release()

    with User(among) as again:
        assert again.uid == 30_020


def test_a_killed_process_holds_no_id():
    code = "from kernelverify.host.users import *\nimport os\nuser = User(range(30030, 30031))\nos.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)

    with User(range(30_030, 30_031)) as user:
        assert user.uid == 30_030


def test_folders_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"kernelverify-{dead.pid}-x"
    left.mkdir()
    other = tmp_path / "kernelverify-notes"
    other.mkdir()
    alive = scratch.make()

    again = scratch.make()

    assert not left.exists()
    assert other.exists()
    assert alive.exists()
    assert again.exists()
    assert f"-{os.getpid()}-" in again.name


def test_an_id_under_which_something_runs_is_left_alone():
    among = range(30_040, 30_041)
    with subprocess.Popen(["sleep", "60"], user=30_040) as stranger:
        with pytest.raises(NoUserError):
            User(among)
        stranger.kill()

    with User(among) as user:
        assert user.uid == 30_040


def test_what_a_candidate_locked_away_is_seen_and_goes_with_its_folder():
    """Where the verifier is not root, both have one user id."""
    place = Path(tempfile.mkdtemp())
    os.chown(place, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        (place / "locked").mkdir(0o300)
        (place / "locked" / "much").write_bytes(b"x")

        assert census.disk(place, ()) == math.inf
        scratch.remove(place)
    finally:
        os.seteuid(0)

    assert list(place.glob("*")) == []
    place.rmdir()
