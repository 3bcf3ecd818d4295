"""The world of a search, in memory and in virtual time: real implementations of the ports, without a model or a GPU.

`virtually(...)` runs a coroutine on an event loop whose time jumps to the next timer instead of passing. Where nothing
is scheduled any more it raises: a hang is a failed test at once, not a slow one.
"""

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kernelsearch.search import loop
from kernelsearch.search.config import Hardware, SearchConfig
from kernelsearch.search.facts import Outcome
from kernelsearch.search.ports import (
    Answer,
    Candidate,
    Event,
    Finish,
    InfrastructureError,
    LiveSpec,
    ModelUnavailableError,
    Tokens,
    VerifierUnavailableError,
)
from kernelverify_api import report as r
from kernelverify_api.request import Language, Problem

REFERENCE = """import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)


def get_inputs():
    return [torch.randn(64, 64)]


def get_init_inputs():
    return []
"""


# Virtual time


class _Jump(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector that never waits: it moves the loop's time on by what it was asked to wait."""

    now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everything waits for something that nothing will bring about")
        if not ready:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def virtually(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class LoopClock:
    """A clock on the running event loop's time. `begin`: what it shows at the start, as after a resume."""

    def __init__(self, begin: float = 0.0) -> None:
        self._begin = begin
        self._zero: float | None = None

    def now(self) -> float:
        time = asyncio.get_running_loop().time()
        self._zero = time if self._zero is None else self._zero
        return time - self._zero + self._begin

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# What models and verifiers say


def source(name: str = "kernel") -> str:
    """A candidate in C++, told apart by its name."""
    return f"""import torch
from torch.utils.cpp_extension import load_inline

module = load_inline(name="{name}", cpp_sources=["..."], functions=["run"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.run(x)
"""


def answer(text: str, *, finish: Finish = Finish.STOP, reasoning: str = "Let me think.", tokens: int = 1000) -> Answer:
    return Answer(text, reasoning, finish, Tokens(100, tokens, tokens // 2), "fake", seconds=0.0)


def coded(name: str = "kernel", **more: Any) -> Answer:
    """An answer with one kernel."""
    return answer(f"Here it is:\n\n```python\n{source(name)}```\n", **more)


def report(status: r.Status | str, *, ratio: float | None = None, level: str = "full", **more: Any) -> r.Report:
    """A report with a timing where a ratio is given."""
    status = r.Status(status)
    return r.Report(
        id="e-1", status=status, summary=f"it is {status}", level=level, timing=ratio and timing(ratio), **more
    )


def timing(ratio: float, *, roofline: r.Roofline | None = None) -> r.Timing:
    speedup = r.Speedup(vs="eager", ratio=ratio, ci99=(ratio * 0.98, ratio * 1.02), pairs=50, verdict="faster")
    return r.Timing(
        score_us=100 / ratio,
        referee_us=100 / ratio,
        baselines={"eager": 100.0},
        speedup=speedup,
        speedups=(speedup,),
        roofline=roofline,
    )


# The ports

Reply = Answer | Exception
Judgement = r.Report | Exception


@dataclass
class FakeModel:
    """Answers what `reply(prompt, number)` says, after `seconds`; cuts at the deadline as the real client does."""

    reply: Callable[[str, int], Reply] = lambda prompt, number: coded(f"k{number}")  # noqa: ARG005
    seconds: float = 10.0
    ignores_deadline: bool = False
    prompts: list[str] = field(default_factory=list)
    began: list[float] = field(default_factory=list)

    async def propose(self, prompt, deadline, on_tokens=None):
        loop_ = asyncio.get_running_loop()
        self.prompts.append(prompt)
        self.began.append(loop_.time())
        reply = self.reply(prompt, len(self.prompts))
        left = deadline - self.clock.now()
        if on_tokens:
            on_tokens(1)
        if self.seconds > left and not self.ignores_deadline:
            await self.clock.sleep(left)
            return Answer("I was thinking", "", Finish.CUT, Tokens(100, 50, 50, estimated=True), "fake", left)
        await self.clock.sleep(self.seconds)
        if isinstance(reply, Exception):
            raise reply
        if on_tokens:
            on_tokens(reply.tokens.completion)
        return replace(reply, seconds=self.seconds)

    clock: LoopClock = field(default_factory=LoopClock)


@dataclass
class FakeVerifier:
    """Judges by `judge(candidate, number)`, after `seconds`. The default: everything is right and 1.5 times as fast."""

    judge: Callable[[Candidate, int], Judgement] = lambda candidate, number: report(  # noqa: ARG005
        "correct", ratio=1.5, level=candidate.level
    )
    seconds: float = 5.0
    seen: list[Candidate] = field(default_factory=list)

    async def verify(self, candidate, deadline):  # noqa: ARG002 - a real one submits with it
        self.seen.append(candidate)
        judgement = self.judge(candidate, len(self.seen))
        await self.clock.sleep(self.seconds)
        if isinstance(judgement, Exception):
            raise judgement
        return judgement

    clock: LoopClock = field(default_factory=LoopClock)


@dataclass
class MemoryStore:
    """Keeps what JSON can keep, as any real store."""

    text: str | None = None
    saves: list[dict[str, Any]] = field(default_factory=list)
    fail: Callable[[int], bool] = lambda number: False  # noqa: ARG005
    tries: int = 0

    async def load(self) -> Mapping[str, Any] | None:
        return json.loads(self.text) if self.text else None

    async def save(self, checkpoint) -> None:
        self.tries += 1
        if self.fail(self.tries):
            raise InfrastructureError("the disk is full")
        self.text = json.dumps(checkpoint, allow_nan=False)
        self.saves.append(json.loads(self.text))


@dataclass
class MemoryArchive:
    records: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    fail: bool = False

    async def append(self, record) -> None:
        if self.fail:
            raise InfrastructureError("the disk is full")
        self.records.append(json.loads(json.dumps(record, allow_nan=False)))

    async def keep_best(self, record) -> None:
        if self.fail:
            raise InfrastructureError("the disk is full")
        self.best = json.loads(json.dumps(record, allow_nan=False))


@dataclass
class FakeProgress:
    """Publishes into a list. `spec` may be replaced while the search runs; `at` does so at given times."""

    spec: LiveSpec = field(default_factory=lambda: LiveSpec(deadline=600.0))
    published: list[dict[str, Any]] = field(default_factory=list)
    at: Mapping[float, LiveSpec] = field(default_factory=dict)
    fail: Callable[[int], bool] = lambda number: False  # noqa: ARG005
    clock: LoopClock = field(default_factory=LoopClock)
    tries: int = 0

    def live(self) -> LiveSpec:
        now = self.clock.now()
        for moment in sorted(self.at):
            if now >= moment:
                self.spec = self.at[moment]
        return self.spec

    async def publish(self, facts) -> LiveSpec:
        self.tries += 1
        if self.fail(self.tries):
            raise InfrastructureError("the API server is gone")
        self.published.append(json.loads(json.dumps(facts, allow_nan=False)))
        return self.live()


@dataclass
class Recorder:
    """An observer that keeps everything."""

    events: list[Event] = field(default_factory=list)

    def on(self, event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def search(**parts: Any) -> SearchConfig:
    """A small search on a CPU: one chain, unless told otherwise."""
    defaults: dict[str, Any] = {
        "name": "relu",
        "problem": Problem(source=REFERENCE, name="relu"),
        "languages": (Language.CPP,),
        "hardware": Hardware("cpu", "Fake CPU", {"cores": "2"}),
        "model": "fake",
        "chains": 1,
        "strategy": "BestOfN",
        "heartbeat_seconds": 5.0,  # a fifth of the publications makes tests quick
    }
    return SearchConfig(**{**defaults, **parts})


@dataclass
class World:
    """All ports together, and a search to run in them."""

    config: SearchConfig = field(default_factory=search)
    model: FakeModel = field(default_factory=FakeModel)
    verifier: FakeVerifier = field(default_factory=FakeVerifier)
    store: MemoryStore = field(default_factory=MemoryStore)
    archive: MemoryArchive = field(default_factory=MemoryArchive)
    progress: FakeProgress = field(default_factory=FakeProgress)
    observer: Recorder = field(default_factory=Recorder)
    ended_at: float = 0.0

    def run(self, **more: Any) -> Outcome:
        """Run the search to its end, in virtual time."""
        return virtually(self.play(**more))

    async def play(self, begin: float = 0.0) -> Outcome:
        clock = LoopClock(begin)
        clock.now()
        for port in (self.model, self.verifier, self.progress):
            port.clock = clock
        try:
            return await loop.run(
                self.config,
                proposer=self.model,
                verifier=self.verifier,
                store=self.store,
                archive=self.archive,
                progress=self.progress,
                clock=clock,
                observer=self.observer,
            )
        finally:
            self.ended_at = clock.now()

    @property
    def status(self) -> dict[str, Any]:
        """The facts as last published."""
        return self.progress.published[-1]

    @property
    def verdicts(self) -> list[str]:
        return [record["verdict"] for record in self.archive.records]


def in_turn(replies: Iterable[Any]) -> Callable[..., Any]:
    """A function that gives these one after another, and the last one for ever."""
    queue = list(replies)
    return lambda *_: queue.pop(0) if len(queue) > 1 else queue[0]


model_down = ModelUnavailableError("connection refused")
verifier_down = VerifierUnavailableError("no verifier answers")
