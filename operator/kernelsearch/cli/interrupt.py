"""Ctrl-C: the first ends the search in order, the second at once, the third is the system's own."""

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those of them that a parent ignored for us (`nohup`, a shell's `&`) stay ignored."""


class Interrupt:
    """Use as a context manager inside the task that is to be ended."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._end: Callable[[], None] | None = None
        self.count = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._heard:
            self._loop.add_signal_handler(number, self.on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def ends_by(self, end: Callable[[], None]) -> None:
        """From now on the first signal calls this; until then it cancels the task."""
        self._end = end

    def on_signal(self) -> None:
        """One more signal."""
        self.count += 1
        if self.count == 1 and self._end is not None:
            self._say("ending the search and keeping what was found; once more ends it at once")
            self._end()
            return
        self._restore()
        if self._task is not None:
            self._task.cancel()

    def _restore(self) -> None:
        for number in self._heard:
            self._loop.remove_signal_handler(number)
