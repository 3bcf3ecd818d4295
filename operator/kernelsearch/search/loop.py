"""The closed loop: propose, verify, remember, until the budget ends.

Each chain is a task of its own: it asks the strategy what to do next, renders the prompt, lets the model propose, takes
the kernel out of the answer, has it verified, and remembers. The loop owns no policy: what to try is `strategy`'s,
when to end `budget`'s, what to say `prompts`' and `feedback`'s, what lasts `ledger`'s.
"""

import asyncio
import itertools
from collections.abc import Coroutine

from kernelsearch.search import budget, extract, population, ports, prompts, strategy, verdict
from kernelsearch.search.config import SearchConfig
from kernelsearch.search.extract import Kernel
from kernelsearch.search.facts import Outcome, Reason
from kernelsearch.search.ledger import Ledger
from kernelsearch.search.patience import GivenUpError, InterruptedWaitError
from kernelsearch.search.population import Verdict
from kernelsearch.search.strategy import Fresh, Improve, Repair, Restart, Stop, Strategy
from kernelsearch.search.verdict import NO_REPORTS, Asked, Reports
from kernelsearch.search.watch import Watch
from kernelverify_api.report import Report, Status
from kernelverify_api.request import Level

MEASURED = 3
"""Measurements of one kernel while something slows the baseline: a busy machine is calm again by then, and a candidate
that disturbs it by itself must not go round for ever."""


async def run(
    search: SearchConfig,
    *,
    proposer: ports.Proposer,
    verifier: ports.Verifier,
    store: ports.Store,
    archive: ports.Archive,
    progress: ports.Progress,
    clock: ports.Clock,
    observer: ports.Observer | None = None,
) -> Outcome:
    """Run or resume a search to its end.

    Raises UnusableCheckpointError for a checkpoint of another search, InfrastructureError when store or progress do
    not work at the start, ValueError for an unknown strategy. Whatever fails later is retried, told and survived.
    """
    observer = observer or ports.Silent()
    chosen, note = strategy.choose(search.strategy, search.seed, search.hardware.device)
    ledger = await Ledger.open(search, chosen.width(search.chains), store, archive, progress, clock, observer)
    watch = Watch(await ledger.publish(), ledger, clock, observer)
    observer.on(ports.Started(len(ledger.population.chains), chosen.name, ledger.resumed, prompts.VERSION, note))
    return await Loop(ledger, watch, chosen, proposer, verifier, clock, observer).run()


class Loop:
    """The chains of one search."""

    def __init__(
        self,
        ledger: Ledger,
        watch: Watch,
        chosen: Strategy,
        proposer: ports.Proposer,
        verifier: ports.Verifier,
        clock: ports.Clock,
        observer: ports.Observer,
    ) -> None:
        self.ledger, self.watch, self.strategy = ledger, watch, chosen
        self.proposer, self.verifier = proposer, verifier
        self.clock, self.observer = clock, observer

    async def run(self) -> Outcome:
        """Run all chains until they stop or the search is over, and say why it is."""
        width = len(self.ledger.population.chains)
        chains = asyncio.gather(*(self.work(chain) for chain in range(width)))
        why = await self.watch.over(chains, self.watch.follow(), self.ledger.keep_saved(), self.ledger.keep_best())
        return await self.ledger.close(budget.settle(why, self.ledger.population))

    async def work(self, chain: int) -> str:
        """One chain, a step after another. Returns why it stopped, when it did so by itself."""
        while self.watch.check():
            if not budget.may_start(self.watch.spec, self.ledger.population, len(self.ledger.in_flight)):
                await self.watch.pause()
                continue
            step = self.strategy.next_step(self.ledger.population, chain)
            if isinstance(step, Stop):
                return step.reason
            await self.attempt(chain, step)
        return ""

    async def attempt(self, chain: int, step: Fresh | Repair | Improve | Restart) -> None:
        """Propose, extract, verify, remember."""
        asked = verdict.asked(await self.ledger.reserve(), chain, step, self.clock.now())
        prompt = prompts.render(self.ledger.search, step, self.ledger.population)
        self.observer.on(ports.AttemptStarted(asked.id, chain, asked.kind, asked.base, asked.idea))
        answer = None
        try:
            answer = await self.propose(asked, prompt)
            kernel = extract.kernel(answer, self.ledger.search.languages)
            reports = await self.judge(asked, kernel) if isinstance(kernel, Kernel) else NO_REPORTS
        except (InterruptedWaitError, GivenUpError) as error:
            self.drop(asked, answer, error)
        else:
            found = verdict.attempt(asked, answer, kernel, reports, self.clock.now())
            record = verdict.as_record(asked, prompt, answer, found, reports)
            await self.ledger.record(asked, found, answer.tokens, record)
            if found.verdict is Verdict.CUT:
                await self.watch.pause()

    async def propose(self, asked: Asked, prompt: str) -> ports.Answer:
        """The model's answer."""

        def heard(tokens: int) -> None:
            self.ledger.heard(asked.id, tokens)
            self.observer.on(ports.TokensSoFar(asked.id, asked.chain, tokens))

        def call() -> Coroutine[None, None, ports.Answer]:
            if not self.watch.check():
                raise InterruptedWaitError
            self.ledger.pay_heard(asked.id)
            return self.proposer.propose(prompt, self.watch.spec.deadline, heard)

        return await self.watch.services.insist(ports.Service.MODEL, call, self.watch.no_more_answers, asked.chain)

    async def judge(self, asked: Asked, kernel: Kernel) -> Reports:
        """The verifier's reports: what would be the new best is verified again, and only that figure counts."""
        full = await self.verify(asked, kernel, Level.FULL)
        if not population.beats(self.ledger.population, full):
            return full, None
        try:
            return full, await self.verify(asked, kernel, Level.CHAMPION)
        except (InterruptedWaitError, GivenUpError):
            if self.watch.end and self.watch.end.reason is Reason.SUSPENDED:
                raise
            return full, None  # right all the same; only its figure stays unconfirmed

    async def verify(self, asked: Asked, kernel: Kernel, level: Level) -> Report:
        """One report on the kernel itself; whatever says nothing about it is the infrastructure's and repeated."""
        candidate = ports.Candidate(asked.id, kernel.source, kernel.language.value, level)
        self.observer.on(ports.Verifying(asked.id, asked.chain, level, candidate.language))
        measured = itertools.count(1)

        async def call() -> Report:
            report = await self.verifier.verify(candidate, self.watch.last_moment)
            if report.status in {Status.INFRA_ERROR, Status.CANCELLED}:
                raise ports.VerifierUnavailableError(f"the evaluation ended as {report.status}: {report.summary}")
            if verdict.disturbed(report) and next(measured) < MEASURED:
                raise ports.VerifierUnavailableError(f"the measurement was disturbed: {report.summary}")
            return report

        return await self.watch.services.insist(ports.Service.VERIFIER, call, self.watch.no_more_verdicts, asked.chain)

    def drop(self, asked: Asked, answer: ports.Answer | None, error: Exception) -> None:
        """The attempt comes to no verdict. A prompt that the model cannot take is not sent again: a fresh start is."""
        heard = ports.Tokens(completion=self.ledger.in_flight.get(asked.id, 0), estimated=True)
        self.ledger.drop(asked, answer.tokens if answer else heard, str(error) or "the search ended first")
        if isinstance(error, GivenUpError) and answer is None:
            self.ledger.forget_last(asked.chain)
