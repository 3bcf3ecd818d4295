"""A user id for each candidate, which no other candidate on this machine has.

The census finds a candidate's processes by their user, so two verifiers that took the same one would kill each other's
candidates. An id is therefore held by a socket of that name in Linux's abstract namespace: the kernel gives a name to
one process only, and takes it back when the process ends, however it ends. Containers with networks of their own do not
see each other's names, and neither do they see each other's processes. An id under which something already runs,
whoever started it, is nobody's to take either.
"""

import errno
import secrets
import socket
from types import TracebackType
from typing import Self

from kernelverify.host import census
from kernelverify.sandbox import identity

FIRST, COUNT = 20_000, 39_000
"""Above the users of any distribution, below 65,536: a pod may map no more."""
TRIES = 1000


class NoUserError(Exception):
    """Every id that was tried is held by somebody."""


class User:
    """An id of one's own while it is held; None where this process cannot change users."""

    def __init__(self, among: range = range(FIRST, FIRST + COUNT)) -> None:
        self.uid: int | None = None
        self._held: socket.socket | None = None
        if identity.can_change():
            self._reserve(among)

    def _reserve(self, among: range) -> None:
        used = census.users()
        for _ in range(TRIES):
            uid = among[secrets.randbelow(len(among))]
            if uid in used:
                continue
            held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                held.bind(f"\0kernelverify-user-{uid}")
            except OSError as error:
                held.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                continue  # somebody has it
            self.uid, self._held = uid, held
            return
        raise NoUserError(f"no user id from {among.start} to {among.stop - 1} is free")

    def release(self) -> None:
        """Once nothing runs under it any more."""
        if self._held is not None:
            self._held.close()
        self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
