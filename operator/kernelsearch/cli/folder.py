"""Where a search on this machine keeps everything, and the `Progress` port over it.

search.yaml       the manifest, as it was run
journal.jsonl     checkpoints: what a resumed search goes on from
attempts/         every attempt whole, in parts
status.json       the runner's part of `status`, as on a cluster
clock             seconds that the search has used, at its last heartbeat
best/             the best kernel, its report, its reference, how to reproduce its figure
report.html       a page that stands alone
audit.json        what the audit said about the problem
verifier.log      what the verifier said
earlier/N/        what a search before `--fresh` left
lock              held while a process runs this search
"""

import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kernelsearch.report import best
from kernelsearch.search import archive
from kernelsearch.search.archive import Parts
from kernelsearch.search.ports import Clock, InfrastructureError, LiveSpec

EARLIER = "earlier"


class FolderBusyError(Exception):
    """Another process runs the search of this folder."""


class FolderUnusableError(Exception):
    """The folder cannot hold results. The message says what to do."""


class Folder:
    """The results of one search. Use as a context manager: it is locked inside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / "search.yaml"
        self.journal = path / "journal.jsonl"
        self.attempts = path / "attempts"
        self.status = path / "status.json"
        self.clock = path / "clock"
        self.best = path / "best"
        self.page = path / "report.html"
        self.audit = path / "audit.json"
        self.verifier_log = path / "verifier.log"
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("a+", encoding="ascii")
        except OSError as error:
            raise FolderUnusableError(
                f"{self.path} cannot be used for results: {error.strerror}; give another directory to --out"
            ) from error
        self._take(self._lock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    def _take(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            who = lock.read(20).strip() or "unknown"
            lock.close()
            raise FolderBusyError(
                f"process {who} runs the search in {self.path}; wait for it, end it, or give another --out"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()

    def set_aside(self) -> Path | None:
        """Move what an earlier search left to `earlier/N`; where it is now, or None when there was nothing."""
        left = [each for each in self.path.iterdir() if each.name not in {EARLIER, "lock"}]
        if not left:
            return None
        target = self.path / EARLIER / str(self._next_number())
        target.mkdir(parents=True)
        for each in left:
            each.rename(target / each.name)
        return target

    def _next_number(self) -> int:
        earlier = self.path / EARLIER
        taken = [int(each.name) for each in earlier.iterdir() if each.name.isdigit()] if earlier.is_dir() else []
        return max(taken, default=0) + 1


class StatusFile:
    """Satisfies `ports.Progress`: facts go to `status.json`, the budget is the manifest's, `stop` is the user's."""

    def __init__(self, path: Path, spec: LiveSpec, clock: "KeptClock") -> None:
        self._path = path
        self._clock = clock
        self.spec = spec
        self.facts: Mapping[str, Any] = {}

    def stop(self) -> None:
        """End the search at its next heartbeat."""
        self.spec = replace(self.spec, stop=True)

    def live(self) -> LiveSpec:
        """See `ports.Progress`."""
        return self.spec

    async def publish(self, facts: Mapping[str, Any]) -> LiveSpec:
        """See `ports.Progress`."""
        self.facts = facts
        self._clock.keep()
        write_whole(self._path, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
        return self.spec


class KeptClock:
    """The search clock in a file of its own, kept at each heartbeat.

    A checkpoint comes with a verdict only, and a search that is killed in the middle of long answers must not get their
    time again. Not fsynced: a kill does not need it, and a machine that loses power may lose a second.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def keep(self) -> None:
        """Raises InfrastructureError."""
        write_whole(self._path, f"{self._clock.now():.3f}\n")


def seconds_kept(path: Path) -> float:
    """Where the clock stood at its last heartbeat; 0 where none is kept or what is there is none."""
    try:
        kept = float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
    return kept if 0.0 <= kept < math.inf else 0.0


class BestKept:
    """Satisfies `ports.Archive`: archives, and keeps the best kernel's folder at the latest best."""

    def __init__(self, folder: Folder, origin: best.Origin) -> None:
        self._parts = Parts(folder.attempts)
        self._folder, self._origin = folder, origin

    async def append(self, record: Mapping[str, Any]) -> None:
        """See `ports.Archive`."""
        await self._parts.append(record)

    async def keep_best(self, record: Mapping[str, Any]) -> None:
        """See `ports.Archive`."""
        keep_best(self._folder, self._origin, record)


def keep_best(folder: Folder, origin: best.Origin, record: Mapping[str, Any]) -> None:
    """Write the best kernel's folder unless it holds this one. Raises InfrastructureError."""
    if best.is_kept(folder.best, str(record["source"])):
        return
    archived = (each for each in archive.read(folder.attempts) if each.get("attempt") == record["attempt"])
    best.keep(folder.best, origin, next(archived, record) if "prompt" not in record else record)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all: readers never see half a file. Raises InfrastructureError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8", errors="replace")
        fresh.replace(path)
    except OSError as error:
        raise InfrastructureError(f"{path} could not be written: {error.strerror or error}; make room there") from error
