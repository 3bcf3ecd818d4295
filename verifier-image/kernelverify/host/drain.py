"""Reads what a candidate prints: bounded, whatever it floods."""

import os
import threading

LOG_BYTES = 16 * 1024


class Drain(threading.Thread):
    """Reads one output stream so that a flood neither blocks nor fills anything; keeps its beginning and its end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._read_end, self.write_end = os.pipe()
        self._head, self._tail = bytearray(), bytearray()

    def run(self) -> None:
        os.close(self.write_end)
        while chunk := os.read(self._read_end, 65536):
            room = LOG_BYTES // 2 - len(self._head)
            self._head += chunk[: max(0, room)]
            self._tail = (self._tail + chunk[max(0, room) :])[-LOG_BYTES // 2 :]
        os.close(self._read_end)

    def finish(self) -> None:
        """Close what was never started, or wait for the end of the stream: every writer is dead by now."""
        if self.ident is None:
            os.close(self._read_end)
            os.close(self.write_end)
        else:
            self.join(2)

    @property
    def text(self) -> str:
        if self.ident is not None:
            self.join(0.02)
        return (bytes(self._head) + bytes(self._tail)).decode("utf-8", "replace")
