"""Attempts in gzip parts: whole ones come back, torn ones are left out."""

import asyncio
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelsearch.search import archive
from kernelsearch.search.archive import Parts
from kernelsearch.search.ports import InfrastructureError


def record(number: int, **parts) -> dict:
    return {"attempt": number, "prompt": "größer 🚀 " * 10, **parts}


def fill(parts: Parts, *numbers: int) -> None:
    for number in numbers:
        asyncio.run(parts.append(record(number)))


def attempts(directory: Path) -> list[int]:
    return [each["attempt"] for each in archive.read(directory)]


def test_records_come_back_in_order(tmp_path):
    fill(Parts(tmp_path), 1, 2, 3)

    assert list(archive.read(tmp_path)) == [record(1), record(2), record(3)]


def test_an_archive_that_is_not_there_is_empty(tmp_path):
    assert attempts(tmp_path / "nowhere") == []


def test_parts_are_ordinary_gzip(tmp_path):
    fill(Parts(tmp_path), 1, 2)

    (part,) = tmp_path.iterdir()
    assert part.name == "attempts-00001.jsonl.gz"
    assert gzip.decompress(part.read_bytes()).count(b"\n") == 2


def test_a_full_part_is_followed_by_another(tmp_path):
    fill(Parts(tmp_path, part_bytes=200), *range(1, 8))

    assert len(list(tmp_path.iterdir())) > 1
    assert attempts(tmp_path) == list(range(1, 8))


def test_a_new_process_begins_a_new_part(tmp_path):
    fill(Parts(tmp_path), 1)
    fill(Parts(tmp_path), 2)

    assert [path.name for path in sorted(tmp_path.iterdir())] == ["attempts-00001.jsonl.gz", "attempts-00002.jsonl.gz"]
    assert attempts(tmp_path) == [1, 2]


@given(st.integers(1, 120))
def test_a_torn_end_costs_the_last_record_only(tmp_path_factory, cut):
    directory = tmp_path_factory.mktemp("torn")
    fill(Parts(directory), 1)
    first = (directory / "attempts-00001.jsonl.gz").stat().st_size
    directory.joinpath("attempts-00001.jsonl.gz").unlink()
    fill(Parts(directory), 1, 2)
    part = directory / "attempts-00001.jsonl.gz"
    part.write_bytes(part.read_bytes()[: max(first, part.stat().st_size - cut)])

    assert attempts(directory)[:1] == [1]
    fill(Parts(directory), 3)
    assert attempts(directory)[-1] == 3


def test_a_full_disk_is_infrastructure_and_the_next_record_begins_a_new_part(tmp_path, monkeypatch):
    parts = Parts(tmp_path)
    fill(parts, 1)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", no_space)
        with pytest.raises(InfrastructureError, match=r"^could not be archived in .*: No space left"):
            fill(parts, 2)
    fill(parts, 3)

    assert attempts(tmp_path) == [1, 3]
    assert len(list(tmp_path.iterdir())) == 2


def no_space(*_, **__):
    raise OSError(28, "No space left on device")


def test_text_that_cannot_be_encoded_costs_one_character(tmp_path):
    asyncio.run(Parts(tmp_path).append(record(1, answer="a\ud83db")))

    assert next(archive.read(tmp_path))["answer"] == "a?b"


def test_other_files_in_the_directory_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fill(Parts(tmp_path), 1)

    assert attempts(tmp_path) == [1]
