"""A small script for the replay model, and the model client in front of it, over real HTTP on the loopback."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from fakes import report
from kernelsearch.clients import errors
from kernelsearch.clients.model import Endpoint, ModelClient, Patience
from kernelsearch.replay import script, server
from kernelsearch.replay.faults import Fault
from kernelsearch.search import extract
from kernelsearch.search.ports import Answer, Finish, Tokens
from kernelverify_api.report import Build, BuildMessage, Report
from kernelverify_api.request import Language

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SPEEDUPS = {"scalar-double": 0.2, "vectorised": 1.5, "parallel": 2.6, "two-rows": 2.5}
FAILURES = {"forgotten-name": "compile_error", "wrong-mean": "incorrect", "decoy": "reward_hack"}
"""What the quickstart's written kernels earn, about."""

THOUGHT = "Okay, so I need a kernel. Let me think about the rows first, then about the columns."
CONTENT = "Here it is:\n```python\nclass ModelNew: ...\n```\n"
TEXT = f"""
schema: 1
model: small
pace: {{tokensPerSecond: 2000, firstTokenSeconds: 0.01}}
answers:
  only: {{thought: "{THOUGHT}", content: {json.dumps(CONTENT)}}}
fallback: only
"""
QUICK = Patience(first_token_s=1.0, stall_s=0.5, give_up_s=30.0, backoff=errors.Backoff(first_s=0.02, longest_s=0.05))
BRIEF = Patience(first_token_s=0.3, stall_s=0.2, give_up_s=0.5, backoff=errors.Backoff(first_s=0.02, longest_s=0.05))
"""For faults that last."""
UNHURRIED = Patience(give_up_s=0.5, backoff=BRIEF.backoff)
"""For faults that last and that an answer tells: waiting for one is never the fault."""


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def small(**changes) -> script.Script:
    """The small script with other fields."""
    return script.parse(TEXT).model_copy(update=changes)


def quickstart() -> script.Script:
    return script.load(EXAMPLES / "replay" / "quickstart.yaml")


def answered(written: script.Answer) -> Answer:
    """A written answer as the model client gives it."""
    tokens = Tokens(prompt=100, completion=500, reasoning=300)
    return Answer(written.content, written.thought, Finish(written.finish), tokens, "replay", seconds=0.0)


def verdicts() -> Callable[[str, str], Report]:
    """A judge of the quickstart's kernels: the verdicts that they earn, by source and level."""
    kernels = {
        kernel.source: name
        for name, answer in quickstart().answers.items()
        if isinstance(kernel := extract.kernel(answered(answer), (Language.CPP,)), extract.Kernel)
    }

    def judge(source: str, level: str) -> Report:
        name = kernels[source]
        if name in SPEEDUPS:
            return report("correct", ratio=SPEEDUPS[name], level=level)
        build = Build(ok=False, errors=(BuildMessage(file="main.cpp", line=16, message="'n' was not declared"),))
        return report(FAILURES[name], build=build if FAILURES[name] == "compile_error" else None)

    return judge


def faulty(*texts: str) -> dict[str, tuple[Fault, ...]]:
    return {"faults": tuple(Fault.parse(text) for text in texts)}


@asynccontextmanager
async def asked(
    of: script.Script | None = None,
    *,
    faults: tuple[Fault, ...] = (),
    server_key: str = "",
    patience: Patience = QUICK,
    api_key=None,
    **options,
) -> AsyncIterator[ModelClient]:
    """A client of a replay model that runs in this loop."""
    settings = server.Settings(port=0, faults=faults, api_key=server_key)
    async with server.serving(of or small(), settings) as url:
        endpoint = Endpoint(url, model="replay:small", api_key=api_key)
        async with ModelClient(endpoint, RealClock(), patience=patience, random=Random(1), **options) as client:
            yield client
