"""What pods say, kept: their log is gone once they are, so it is read while they live."""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cluster import tools

AGAIN_S = 1.0


class Log:
    """The lines of one pod and of those that come after it, read in a thread of its own.

    A pod's log is read from its beginning each time: after a kill of the API server its lines come again, and count
    once.
    """

    def __init__(self, environment: Mapping[str, str], which: tuple[str, ...]) -> None:
        self._command = [tools.program(tools.TOOLS["kubectl"]), "logs", "--follow", "--timestamps", "--tail=-1", *which]
        self._environment = environment
        self._lines: dict[str, None] = {}
        self._over = threading.Event()
        self._reading: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    @property
    def lines(self) -> list[tuple[float, str]]:
        """So far, in their order: when each was written, in seconds of the epoch, and the line."""
        return [(datetime.fromisoformat(time).timestamp(), text) for time, _, text in map(_parted, self._lines)]

    def close(self) -> None:
        """Stop reading."""
        self._over.set()
        if self._reading:
            self._reading.terminate()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.is_set():
            with subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as self._reading:
                if self._over.is_set():  # between the last look at it and now: nobody else would end this one
                    self._reading.terminate()
                for line in self._reading.stdout or ():  # bytes: as text, a progress bar's returns would part it
                    self._lines[line.decode(errors="replace").rstrip("\n")] = None
            time.sleep(AGAIN_S)


def _parted(line: str) -> tuple[str, str, str]:
    return line.partition(" ")


@contextmanager
def following(place: Any, *which: str) -> Iterator[Log]:
    """The log of a pod, by its name or by `-l` and a selector, for the block."""
    log = Log(place.cluster.environment, ("-n", place.name, *which))
    try:
        yield log
    finally:
        log.close()
