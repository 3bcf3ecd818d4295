"""A small search in a process of its own, for tests that kill it: `python killable.py FOLDER ATTEMPTS`.

Real clock, journal and archive; model and verifier are fakes that take ten milliseconds. What is published goes to
`facts.jsonl` and which attempts began to `started`, a line each, as they happen.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from fakes import FakeModel, FakeVerifier, coded, report, search
from kernelsearch.cli.folder import BestKept, Folder
from kernelsearch.report import best
from kernelsearch.search import checkpoint, loop
from kernelsearch.search.journal import Journal
from kernelsearch.search.ports import AttemptStarted, LiveSpec


class Clock:
    def __init__(self, begin: float) -> None:
        self._zero = time.monotonic() - begin

    def now(self) -> float:
        return time.monotonic() - self._zero

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Lines:
    """Progress and observer, each line written at once."""

    def __init__(self, folder: Path, attempts: int) -> None:
        self._facts = (folder / "facts.jsonl").open("a", buffering=1)
        self._started = (folder / "started").open("a", buffering=1)
        self._spec = LiveSpec(deadline=1e9, max_attempts=attempts)

    def live(self) -> LiveSpec:
        return self._spec

    async def publish(self, facts) -> LiveSpec:
        self._facts.write(json.dumps(facts) + "\n")
        return self._spec

    def on(self, event) -> None:
        if isinstance(event, AttemptStarted):
            self._started.write(f"{event.attempt}\n")


def judge(candidate, _):
    ratio = 1 + candidate.attempt % 17 / 10
    return report("correct", ratio=ratio) if candidate.attempt % 3 else report("incorrect")


async def main(folder: Path, attempts: int) -> None:
    with Journal(folder / "journal.jsonl", compact_above=100_000) as store:
        clock = Clock(checkpoint.seconds_used(await store.load()))
        lines = Lines(folder, attempts)
        await loop.run(
            search(chains=4),
            proposer=FakeModel(lambda *_: coded(), seconds=0.01, clock=clock),
            verifier=FakeVerifier(judge, seconds=0.01, clock=clock),
            store=store,
            archive=BestKept(Folder(folder), best.Origin("killable", "import torch")),
            progress=lines,
            clock=clock,
            observer=lines,
        )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
