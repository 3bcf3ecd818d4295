"""The checkpoint on a disk that may fill up, under a process that may be killed at any byte."""

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelsearch.search import journal
from kernelsearch.search.journal import Journal, JournalBusyError
from kernelsearch.search.ports import InfrastructureError


def save(path, *checkpoints, **options) -> None:
    with Journal(path, **options) as kept:
        for each in checkpoints:
            asyncio.run(kept.save(each))


def load(path):
    with Journal(path) as kept:
        return asyncio.run(kept.load())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def test_a_new_journal_is_empty(path):
    assert load(path) is None


def test_the_last_save_is_what_counts(path):
    save(path, {"n": 1}, {"n": 2, "text": "größer 🚀\u2028"})

    assert load(path) == {"n": 2, "text": "größer 🚀\u2028"}


def test_an_open_journal_knows_what_it_saved(path):
    with Journal(path) as kept:
        asyncio.run(kept.save({"n": 1}))

        assert asyncio.run(kept.load()) == {"n": 1}


def test_a_save_is_on_the_disk_when_it_returns(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(path.read_bytes()), real(handle)))

    save(path, {"n": 1})

    assert synced[-1] == b'{"n":1}\n'


@given(st.integers(0, 200))
def test_a_torn_last_line_is_ignored_and_written_over(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    save(path, {"n": 1}, {"n": 2, "x": "y" * 100})
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(b'{"n":1}\n'), len(whole) - cut)])

    assert load(path)["n"] == (2 if cut == 0 else 1)
    save(path, {"n": 3})
    assert load(path) == {"n": 3}


@pytest.mark.parametrize("rest", [b'{"n":', b"\0" * 4096, b"[1]\n", b"nonsense\n", b"\xff\xfe\n"])
def test_what_a_crash_may_leave_at_the_end_is_ignored(path, rest):
    save(path, {"n": 1})
    with path.open("ab") as file:
        file.write(rest)

    assert load(path) == {"n": 1}


def test_a_full_disk_is_infrastructure_and_leaves_the_last_save(path, monkeypatch):
    with Journal(path) as kept:
        asyncio.run(kept.save({"n": 1}))
        monkeypatch.setattr(journal, "_write", half_written)
        with pytest.raises(InfrastructureError, match=r"journal\.jsonl: No space left on device; make room there"):
            asyncio.run(kept.save({"n": 2}))
        monkeypatch.undo()

        assert asyncio.run(kept.load()) == {"n": 1}
        assert path.read_bytes() == b'{"n":1}\n'
        asyncio.run(kept.save({"n": 3}))

    assert load(path) == {"n": 3}


def half_written(file, data) -> None:
    file.write(data[: len(data) // 2])
    raise OSError(28, "No space left on device")


def test_a_large_journal_is_begun_anew_with_its_last_line(path):
    save(path, *({"n": n, "x": "y" * 100} for n in range(50)), compact_above=1000)

    assert path.stat().st_size <= 1000
    assert load(path)["n"] == 49


def test_a_kill_while_a_new_journal_is_written_leaves_the_old_one(path, monkeypatch):
    save(path, {"n": 1})
    monkeypatch.setattr(journal, "_write", half_written)
    with pytest.raises(InfrastructureError):
        save(path, {"n": 2, "x": "y" * 100}, compact_above=50)
    monkeypatch.undo()

    assert load(path) == {"n": 1}


def test_two_processes_cannot_share_a_journal(path):
    with Journal(path), pytest.raises(JournalBusyError, match="another process runs this search"):
        Journal(path)


def test_a_closed_journal_can_be_opened_again(path):
    Journal(path).close()

    Journal(path).close()
