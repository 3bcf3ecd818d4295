"""Every attempt, whole: prompt, thought, answer, reports. Gzip JSON lines in parts, in one directory.

`Parts` is the appending half of `ports.Archive`; `read` gives the records back for reports. Each record is a gzip
member of its own, flushed at once, so a killed process tears at most the last one. A part that a failed or killed
process left is never appended to: the next record begins a new part.

A record (schema 1): `attempt`, `chain`, `step`, `base`, `idea`, `promptVersion`, `prompt`, `answer` (`content`,
`reasoning`, `finish`, `model`, `tokens`, `seconds`), `source` and `language` (absent without a kernel), `verdict`,
`reason`, `speedup`, `confirmed`, `best` (whether it became the best), `began` and `seconds` (search clock), `full` and
`champion` (the verifier's reports, null where there was none).
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kernelsearch.search.ports import InfrastructureError

PART_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"attempts-(\d{5,})\.jsonl\.gz")


class Parts:
    """An archive in a directory."""

    def __init__(self, directory: Path, part_bytes: int = PART_BYTES) -> None:
        self.directory = directory
        self._part_bytes = part_bytes
        self._number = max((number for number, _ in _parts(directory)), default=0)
        self._part: Path | None = None

    async def append(self, record: Mapping[str, Any]) -> None:
        """See `ports.Archive`."""
        member = gzip.compress(_line(record), compresslevel=6, mtime=0)
        try:
            part = self._part or self._next_part()
            with part.open("ab") as file:
                file.write(member)
            self._part = part if part.stat().st_size < self._part_bytes else None
        except OSError as error:
            self._part = None
            raise InfrastructureError(
                f"could not be archived in {self.directory}: "
                f"{error.strerror or error}; make room there (the search goes on without)"
            ) from error

    def _next_part(self) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._number += 1
        return self.directory / f"attempts-{self._number:05}.jsonl.gz"


def read(directory: Path) -> Iterator[dict[str, Any]]:
    """All whole records, oldest first. What a killed process tore is left out."""
    for _, part in _parts(directory):
        yield from _records(part)


def _parts(directory: Path) -> list[tuple[int, Path]]:
    if not directory.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), path) for match, path in named if match)


def _records(part: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(part, "rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield json.loads(line)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n"
