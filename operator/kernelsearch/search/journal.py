"""The checkpoint on a laptop: a journal of JSON lines, one fsynced line a save. Satisfies `ports.Store`.

Killed at any instant, what `load` finds is the last line that was written whole: a torn one is ignored, and cut off by
the next start. Once the journal is large its last line alone is written to a new file, which replaces the old one.

Assumption: one process at a time, which the lock file sees to. Writing blocks the loop for the milliseconds of an
fsync; attempts take minutes, and a save that a cancelled task left half done cannot exist this way.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kernelsearch.search.ports import InfrastructureError

COMPACT_ABOVE = 16 * 1024 * 1024
"""Bytes. A checkpoint is 10 to 500 kB as text: some dozens to some hundreds of saves."""


class JournalBusyError(Exception):
    """Another process runs the same search."""


class Journal:
    """A checkpoint journal in one file. Use as a context manager, or call `close`."""

    def __init__(self, path: Path, compact_above: int = COMPACT_ABOVE) -> None:
        self.path = path
        self._compact_above = compact_above
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path.with_name(path.name + ".lock"))
        self._last, self._length = _last_whole_line(path)
        self._file = path.open("ab", buffering=0)
        self._file.truncate(self._length)
        _sync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release file and lock."""
        self._file.close()
        self._lock.close()

    async def load(self) -> Mapping[str, Any] | None:
        """See `ports.Store`."""
        return self._last

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        """See `ports.Store`."""
        line = json.dumps(checkpoint, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
        try:
            if self._length and self._length + len(line) > self._compact_above:
                self._replace(line)
            else:
                self._append(line)
        except OSError as error:
            raise InfrastructureError(
                f"the checkpoint could not be written to {self.path}: {error.strerror or error}; make room there"
            ) from error
        self._last = dict(checkpoint)

    def _append(self, line: bytes) -> None:
        """Write the line whole or not at all."""
        try:
            _write(self._file, line)
        except OSError:
            self._file.truncate(self._length)
            raise
        self._length += len(line)

    def _replace(self, line: bytes) -> None:
        """Begin a new journal with this line. Until the rename the old one stands untouched."""
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb", buffering=0) as file:
            _write(file, line)
        fresh.replace(self.path)
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self._length = len(line)
        _sync_folder(self.path.parent)


def _last_whole_line(path: Path) -> tuple[dict[str, Any] | None, int]:
    """The last line that is whole, and where it ends."""
    if not path.exists():
        return None, 0
    last, whole, position = None, 0, 0
    with path.open("rb") as file:
        for line in file:
            position += len(line)
            mapping = _parsed(line)
            if mapping is not None:
                last, whole = mapping, position
    return last, whole


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        mapping = json.loads(line)
    except ValueError:
        return None
    return mapping if isinstance(mapping, dict) else None


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise JournalBusyError(
            f"another process runs this search ({path} is locked): wait for it, or choose another name or folder"
        ) from error
    return file


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it, durably. Unbuffered: nothing that failed is left behind to be written later."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A new name in a folder is durable only once the folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
