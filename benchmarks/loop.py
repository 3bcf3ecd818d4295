"""What the loop itself costs per attempt, with a model and a verifier that answer at once.

    python benchmarks/loop.py [--attempts N] [--json]

Each attempt goes the whole way: strategy, prompt, extraction, two reports for a new best, checkpoint, archive, facts.
Two stores are compared: the journal and archive of a laptop (fsync on each verdict), and memory, which leaves the
loop's own work. The figure to watch is milliseconds per attempt; a real attempt takes minutes.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kernelsearch.cli.folder import BestKept, Folder
from kernelsearch.report import best
from kernelsearch.search import loop
from kernelsearch.search.config import Hardware, SearchConfig
from kernelsearch.search.journal import Journal
from kernelsearch.search.ports import Answer, Archive, Candidate, Finish, LiveSpec, Store, Tokens
from kernelverify_api.report import Report, Speedup, Status, Timing
from kernelverify_api.request import Language, Problem

REFERENCE = "import torch\n\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x)\n"
THOUGHT = "Let me think about tiles, vector loads and the tail of each row.\n" * 400
KERNEL = """import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r'''
#include <torch/extension.h>
{body}
'''
module = load_inline(name="k{number}", cpp_sources=[SOURCE], functions=["run"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.run(x)
"""
BODY = "// a line of a kernel of ordinary length, about as long as this one\n" * 80
CHAINS = (1, 8, 64)


class WallClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class InstantModel:
    """A 25 kB thought and a 6 kB kernel, at once."""

    asked = 0

    async def propose(self, _prompt: str, _deadline: float, _on_tokens: object = None) -> Answer:
        self.asked += 1
        await asyncio.sleep(0)
        content = f"{THOUGHT}</think>\n```python\n{KERNEL.format(body=BODY, number=self.asked)}```\n"
        return Answer(content, "", Finish.STOP, Tokens(2000, 9000, 7000), "instant", 0.0)


class InstantVerifier:
    """Every fourth candidate is wrong, the others are right and hardly faster each time."""

    async def verify(self, candidate: Candidate, _deadline: float) -> Report:
        await asyncio.sleep(0)
        if candidate.attempt % 4 == 0:
            return Report(id="e", status=Status.INCORRECT, summary="wrong at [0, 1]")
        ratio = 1.0 + (candidate.attempt % 97) / 100
        speedup = Speedup(vs="eager", ratio=ratio, ci99=(ratio, ratio), pairs=40, verdict="faster")
        timing = Timing(score_us=50.0, referee_us=50.0, baselines={"eager": 80.0}, speedup=speedup)
        return Report(id="e", status=Status.CORRECT, summary="right", level=candidate.level, timing=timing)


class Memory:
    """A store and an archive that keep nothing but do the work of writing it down."""

    async def load(self) -> None:
        return None

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        json.dumps(checkpoint)

    async def append(self, record: Mapping[str, Any]) -> None:
        json.dumps(record)

    async def keep_best(self, record: Mapping[str, Any]) -> None:
        json.dumps(record)


class Limited:
    """Publishes nowhere; ends after so many attempts."""

    def __init__(self, attempts: int) -> None:
        self._spec = LiveSpec(deadline=time.monotonic() + 3600, max_attempts=attempts)

    def live(self) -> LiveSpec:
        return self._spec

    async def publish(self, facts: Mapping[str, Any]) -> LiveSpec:
        json.dumps(facts)
        return self._spec


def search(chains: int) -> SearchConfig:
    """A search like any other."""
    return SearchConfig(
        name="bench",
        problem=Problem(source=REFERENCE, name="relu"),
        languages=(Language.CPP,),
        hardware=Hardware("cpu", "CPU", {"cores": "2"}),
        model="instant",
        chains=chains,
    )


def milliseconds(chains: int, attempts: int, store: Store, archive: Archive) -> float:
    """Wall time per attempt of one search."""
    began = time.perf_counter()
    asyncio.run(
        loop.run(
            search(chains),
            proposer=InstantModel(),
            verifier=InstantVerifier(),
            store=store,
            archive=archive,
            progress=Limited(attempts),
            clock=WallClock(),
        )
    )
    return (time.perf_counter() - began) / attempts * 1000


def measure(chains: int, attempts: int, kept: str) -> float:
    """The same in a fresh folder, or in memory."""
    with ExitStack() as stack:
        if kept == "memory":
            return milliseconds(chains, attempts, Memory(), Memory())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        journal = stack.enter_context(Journal(folder / "journal.jsonl"))
        kept_best = BestKept(Folder(folder), best.Origin("bench", REFERENCE))
        return milliseconds(chains, attempts, journal, kept_best)


def main() -> None:
    """Measure, print a table, and with --json one last line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=300, help="attempts of each search (default 300)")
    parser.add_argument("--repeat", type=int, default=3, help="searches of each kind, interleaved (default 3)")
    parser.add_argument("--json", action="store_true", help="print the figures as one last line of JSON")
    options = parser.parse_args()

    cases = [(chains, kept) for chains in CHAINS for kept in ("memory", "disk")]
    figures: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    for _ in range(options.repeat):
        for case in cases:
            figures[case].append(measure(case[0], options.attempts, case[1]))

    print(
        f"{'chains':>6}  {'kept in':>7}  ms per attempt (median of {options.repeat}, {options.attempts} attempts each)"
    )
    for (chains, kept), values in figures.items():
        print(f"{chains:>6}  {kept:>7}  {statistics.median(values):.2f}")
    if options.json:
        result = {f"{kept}_{chains}_chains_ms": round(statistics.median(v), 3) for (chains, kept), v in figures.items()}
        print(json.dumps({"benchmark": "loop", "attempts": options.attempts, "repeat": options.repeat, **result}))


if __name__ == "__main__":
    main()
