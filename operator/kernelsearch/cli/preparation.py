"""What is asked before the search clock starts: can these kernels be judged, is the problem sound, who answers.

On a clock of its own. What the user can mend is an InvalidManifestError or an UnusableProblemError; what is not there
is an InfrastructureError.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.cli import local, wiring
from kernelsearch.cli.folder import write_whole
from kernelsearch.clients import errors, pool
from kernelsearch.clients.model import Endpoint, ModelClient
from kernelsearch.clients.verifier import VerifierClient
from kernelsearch.report import history
from kernelsearch.search import untrusted
from kernelsearch.search.config import SearchConfig
from kernelsearch.search.ports import ModelUnavailableError, UnusableProblemError
from kernelverify_api.report import AuditReport
from kernelverify_api.request import Problem
from kernelverify_api.service import Capabilities

MODEL_SECONDS = 15.0
"""For a model server that is just being started beside us; a missing one is told soon."""
VERIFIER_SECONDS = 60.0
"""A referee that died is back within half a minute, on a busy machine."""
LANE_SECONDS, LANE_TRIES = 60.0, 120
"""For a lane of the verifier to import torch."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Ready:
    """All that the loop needs to know."""

    config: SearchConfig
    model: str
    """The model's name as people see it."""
    notes: tuple[str, ...]


async def prepare(
    search: KernelSearch,
    problem: Problem,
    endpoint: Endpoint,
    urls: Sequence[str],
    audit_file: Path,
    say: Say,
    *,
    token: Callable[[], str] | None = None,
) -> Ready:
    """Ask all of it; `token` tells verifiers who asks.

    Raises InvalidManifestError, UnusableProblemError or InfrastructureError.
    """
    clock = local.MonotonicClock()
    clock.start()
    patience = pool.Patience(give_up_s=VERIFIER_SECONDS)
    until = float(search.spec.budget.startup_deadline_seconds)
    async with VerifierClient(urls, problem, clock, patience=patience, token=token) as verifier:
        able = await verifier.capabilities(until)
        languages = wiring.languages(search, able)
        wiring.check_baselines(search, able)
        model, told = await _who(endpoint, clock)
        audit = await _audit(verifier, problem, until, audit_file, say)
        able = await _awake(verifier, until)
    unsound = wiring.degenerate(audit)
    config = wiring.config(search, problem, languages.allowed, able, model, unsound)
    warning = f"UNSOUND PROBLEM: {untrusted.line(unsound['evidence'], 300)}" if unsound else ""
    notes = (warning, languages.note, told, *wiring.not_used_here(search))
    return Ready(config, history.label(model), tuple(filter(None, notes)))


async def _awake(verifier: VerifierClient, until: float) -> Capabilities:
    """What it can do once a lane is up, which alone knows its device. One that never wakes is the loop's trouble."""
    for _ in range(LANE_TRIES):
        able = await verifier.capabilities(until)
        if any(lane.ready for lane in able.lanes):
            break
        await asyncio.sleep(LANE_SECONDS / LANE_TRIES)
    return able


async def _who(endpoint: Endpoint, clock: local.MonotonicClock) -> tuple[str, str]:
    """The name that answers will come under, and a note. A server need not list its models; it must answer."""
    async with ModelClient(endpoint, clock) as client:
        try:
            names = await _listed(client, clock)
        except errors.ModelRefusedError as error:
            return endpoint.model, f"the model server does not list its models ({untrusted.line(str(error), 300)})"
    replay = next(filter(history.is_replay, names), None)
    if replay is not None:
        return replay, ""
    if names and endpoint.model not in names:
        listed = untrusted.line(", ".join(names), 300)
        return endpoint.model, f"the model server lists {listed}, not {endpoint.model} (spec.model.name)"
    return endpoint.model, ""


async def _listed(client: ModelClient, clock: local.MonotonicClock) -> tuple[str, ...]:
    until = clock.now() + MODEL_SECONDS
    while True:
        try:
            return await client.models()
        except ModelUnavailableError as error:
            if not error.retry or clock.now() >= until:
                raise
        await asyncio.sleep(0.5)


async def _audit(verifier: VerifierClient, problem: Problem, until: float, kept: Path, say: Say) -> AuditReport:
    """From the file of an earlier run of the same problem, or from the verifier."""
    identity = problem.model_dump(mode="json", exclude={"name"})
    if (known := _kept_audit(kept, identity)) is not None:
        return known
    say("asking the verifier whether the problem is sound ...")
    audit = await verifier.audit(until)
    for finding in audit.findings:
        if finding.kind == "unreadable":
            raise UnusableProblemError(finding.evidence)
    write_whole(kept, json.dumps({"problem": identity, "report": audit.model_dump(mode="json", by_alias=True)}))
    return audit


def _kept_audit(kept: Path, identity: object) -> AuditReport | None:
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
        return AuditReport.model_validate_json(json.dumps(known["report"])) if known["problem"] == identity else None
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None
