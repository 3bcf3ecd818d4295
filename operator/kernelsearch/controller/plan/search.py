"""What a KernelSearch should look like.

Invariants
1. `startTime` is written once, with `Accepted=True`; before it no child exists, after it the spec's core is fixed.
2. At most one clock runs: start-up while something is not ready, the search's own from the first moment that all is.
3. The search clock does not stop for anything but `suspend` and the end: what breaks meanwhile costs the search time.
4. A runner exists only while the search is accepted, neither suspended nor complete; never two by our doing.
5. `Complete=True` is never taken back, and nothing but the two ConfigMaps outlives it.
6. A correct kernel makes a search a success, whatever ended it.
7. All conditions are written each time; what is unknown is `Unknown`.
8. An object that cannot be read loses nothing: children, clocks and conditions stay, and `Degraded` says why.

        accept            run               complete
Pending ──────▶ Starting ─────▶ Running ─────────────▶ Succeeded | Failed
                   ▲  │            │   complete             ▲
             wait  │  └─ suspend ──┤  (start-up too long)   │
                   └─ Suspended ◀──┘ ───────────────────────┘ stop
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.spec import KernelSearchSpec
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller.builders import names, network, owned, reach, runner
from kernelsearch.controller.manifest import Key, Manifest
from kernelsearch.controller.plan import (
    clocks,
    conditions,
    model_server,
    outcome,
    pods,
    readiness,
    standing,
    verifier_pool,
)
from kernelsearch.controller.plan.clocks import Clocks
from kernelsearch.controller.plan.conditions import Condition
from kernelsearch.controller.plan.outcome import Ending
from kernelsearch.controller.plan.readiness import Seen
from kernelsearch.controller.plan.shared import LOOK_AGAIN_SECONDS, Plan
from kernelsearch.controller.settings import Settings

REFUSED_AGAIN_SECONDS = 10.0
"""For what can be mended elsewhere, such as a ConfigMap that comes a moment later."""


def plan(seen: Seen, search: KernelSearch, settings: Settings) -> Plan:
    """What should be, and when to look again."""
    if conditions.holds(seen.status, "Complete"):
        return _over(seen, search)
    before = Clocks.read(seen.status)
    if before.start is None:
        if refused := _refusal(seen, search, settings):
            return _refused(seen, refused)
        before = clocks.accept(before, seen.now)
    return _started(seen, search, settings, before)


def invalid(seen: Seen, message: str) -> Plan:
    """The stored object cannot be read: another schema admitted it. What it has already is left alone."""
    if conditions.holds(seen.status, "Complete"):
        return Plan((), None, finished=True, keep=True)
    if Clocks.read(seen.status).start is None:
        return _refused(seen, conditions.false("Accepted", "InvalidSpec", message))
    words = f"the stored object cannot be read, so that what runs is left as it is: {message}"
    unreadable = conditions.true("Degraded", "InvalidSpec", words)
    return Plan((), standing.but(unreadable, seen.body, seen.now), REFUSED_AGAIN_SECONDS, keep=True)


# ---- before acceptance ----


def _refusal(seen: Seen, search: KernelSearch, settings: Settings) -> Condition | None:
    if wrong := "; ".join([*faults(search, settings), *_faults_of_owned(seen, search, settings)]):
        return conditions.false("Accepted", "InvalidSpec", wrong)
    if seen.missing_reference:
        return conditions.false("Accepted", "ProblemNotFound", seen.missing_reference)
    return None


def faults(search: KernelSearch, settings: Settings) -> Iterator[str]:
    """What is wrong with a spec that the schema admits, each with its remedy."""
    spec, policy = search.spec, settings.policy
    if spec.problem.kernel_bench is not None:
        yield "spec.problem.kernelBench: is not read on a cluster yet; put the reference inline or into a ConfigMap"
    if spec.archive is not None:
        yield "spec.archive: is not written on a cluster yet; leave it out, the best kernel is kept in a ConfigMap"
    if spec.queue_name:
        yield "spec.queueName: queues are not supported yet; leave it out"
    endpoint = spec.model.endpoint
    if endpoint and policy.allowed_endpoint_hosts and not _allowed(endpoint.url, policy.allowed_endpoint_hosts):
        hosts = ", ".join(policy.allowed_endpoint_hosts)
        yield f"spec.model.endpoint.url: {urlsplit(endpoint.url).hostname} is not allowed here; allowed are {hosts}"
    if endpoint:
        yield from reach.faults(endpoint.url, policy.network_policy, "spec.model.endpoint.url")


def _faults_of_owned(seen: Seen, search: KernelSearch, settings: Settings) -> Iterator[str]:
    """Of the ModelServer and the VerifierPool that it would make: once it has started, neither can be changed."""
    found: list[tuple[str, Iterable[str]]] = []
    if search.spec.model.serve is not None:
        made = owned.model_server(seen.body, search)
        found.append(("model", model_server.faults(ModelServer.stored(made), settings)))
    if search.spec.verifiers.serve is not None:
        made = owned.verifier_pool(seen.body, search)
        found.append(("verifiers", verifier_pool.faults(VerifierPool.stored(made), settings)))
    for part, words in found:
        yield from (re.sub(r"(?<![\w.])spec\.", f"spec.{part}.serve.", each) for each in words)


def _allowed(url: str, hosts: tuple[str, ...]) -> bool:
    host = urlsplit(url).hostname or ""
    return any(host == each or (each.startswith("*.") and host.endswith(each[1:])) for each in hosts)


def _refused(seen: Seen, accepted: Condition) -> Plan:
    others = [conditions.unknown(kind) for kind in ("ModelReady", "VerifiersReady", "RunnerReady")]
    told = [
        accepted,
        *others,
        conditions.false("Progressing", accepted.reason, accepted.message),
        conditions.false("Solved", "NotYet"),
        conditions.false("Complete", "NotYet"),
        conditions.false("Suspended", "NotSuspended"),
    ]
    status = _status(seen, Clocks.read(seen.status), told, "Pending")
    return Plan((), status, REFUSED_AGAIN_SECONDS)


# ---- alive ----


@dataclass(frozen=True)
class _State:
    """A started search, decided."""

    clocks: Clocks
    phase: str
    progressing: Condition
    ending: Ending | None = None


def _started(seen: Seen, search: KernelSearch, settings: Settings, before: Clocks) -> Plan:
    ready = readiness.all_of(seen, search)
    state = _decide(seen, search.spec, before, ready)
    told = [conditions.true("Accepted", "Valid"), *ready, state.progressing, _solved(seen)]
    if state.ending is not None:
        told.append(conditions.true("Complete", state.ending.reason, state.ending.message))
    else:
        told.append(conditions.false("Complete", "NotYet"))
    suspended = state.phase == "Suspended"
    told.append(
        conditions.true("Suspended", "Asked", "spec.suspend is true")
        if suspended
        else conditions.false("Suspended", "NotSuspended")
    )
    status = _status(seen, state.clocks, told, state.phase)
    if state.ending is not None:
        return Plan(tuple(_kept(seen, search)), status, finished=True)
    if suspended:
        return Plan(tuple(_kept(seen, search)), status)
    children = (*_kept(seen, search), *_working(seen, search, settings))
    remove, wait = _replaced(seen)
    return Plan(children, status, min(wait, _next_look(seen, search.spec, state.clocks)), remove)


def _decide(seen: Seen, spec: KernelSearchSpec, before: Clocks, ready: tuple[Condition, ...]) -> _State:
    missing = [f"{each.type[:-5]}: {each.message or each.reason}" for each in ready if each.status != "True"]
    waiting_for = "; ".join(missing)
    evidence = outcome.Evidence(spec, seen.status, before, seen.now, waiting_for, seen.runner is not None)
    if ending := outcome.ending(evidence):
        phase = "Succeeded" if outcome.solved(seen.status) else "Failed"
        over = conditions.false("Progressing", ending.reason, ending.message)
        return _State(clocks.complete(before, seen.now), phase, over, ending)
    if spec.stop:
        stopping = conditions.false("Progressing", "Stopping", "spec.stop is true; the runner is saving")
        return _State(before, "Running" if before.running else "Starting", stopping)
    if spec.suspend:
        return _State(
            clocks.suspend(before, seen.now),
            "Suspended",
            conditions.false("Progressing", "Suspended", "spec.suspend is true"),
        )
    if before.running or not missing:
        running = clocks.run(before, seen.now, spec.budget)
        words = f"running, but waits for {waiting_for}" if missing else ""
        return _State(running, "Running", conditions.true("Progressing", "Searching", words))
    starting = clocks.hold(before, seen.now) if seen.gated else clocks.wait(before, seen.now)
    return _State(starting, "Starting", conditions.true("Progressing", "Starting", f"waits for {waiting_for}"))


def _solved(seen: Seen) -> Condition:
    if not outcome.solved(seen.status):
        return conditions.false("Solved", "NotYet", "no correct kernel so far")
    speedup = (seen.status.get("best") or {}).get("speedup")
    words = f"{speedup} times as fast as the fastest baseline" if speedup else "correct, and not timed"
    return conditions.true("Solved", "CorrectKernel", words)


def _kept(seen: Seen, search: KernelSearch) -> Iterator[Manifest]:
    """What outlives a pause, and the end."""
    name = search.metadata.name
    yield runner.config_map(seen.body, names.checkpoint(name))
    yield runner.config_map(seen.body, names.best(name), owned=not search.spec.retain_best)


def _working(seen: Seen, search: KernelSearch, settings: Settings) -> Iterator[Manifest]:
    """What runs while the search does."""
    spec = search.spec
    if spec.model.serve is not None and not _taken(seen, seen.server):
        yield owned.model_server(seen.body, search)
    if spec.verifiers.serve is not None and not _taken(seen, seen.pool):
        yield owned.verifier_pool(seen.body, search)
    yield from (runner.account(seen.body), runner.role(seen.body), runner.binding(seen.body))
    policies = settings.policy.network_policy
    if policies.enabled:
        yield network.runner(seen.body, policies, outside=spec.model.endpoint is not None)
    pod = seen.runner
    restarts = 0 if pod is None else pods.next_restarts(pod) if pod.over else pod.restarts
    yield runner.pod(seen.body, search, settings, _model_url(seen, search), _verifiers(seen, search), restarts)


def _taken(seen: Seen, found: Manifest | None) -> bool:
    """An object of that name belongs to somebody else: it is never adopted."""
    return found is not None and not any(
        each.get("uid") == seen.metadata["uid"] for each in found["metadata"].get("ownerReferences") or ()
    )


def _model_url(seen: Seen, search: KernelSearch) -> str:
    model, namespace = search.spec.model, seen.metadata["namespace"]
    if model.endpoint is not None:
        return model.endpoint.url
    ref = model.server_ref
    name, place = (ref.name, ref.namespace or namespace) if ref else (search.metadata.name, namespace)
    told = (seen.server or {}).get("status", {}).get("endpoint")
    return str(told or names.model_url(name, place))


def _verifiers(seen: Seen, search: KernelSearch) -> str:
    ref, namespace = search.spec.verifiers.pool_ref, seen.metadata["namespace"]
    name, place = (ref.name, ref.namespace or namespace) if ref else (search.metadata.name, namespace)
    return names.verifier_service(name, place)


def _replaced(seen: Seen) -> tuple[frozenset[Key], float]:
    """An ended runner, once its backoff is over; and how long that takes."""
    pod = seen.runner
    if pod is None or not pod.over or pod.deleting:
        return frozenset(), LOOK_AGAIN_SECONDS
    wait = pods.replace_in(pod, seen.now)
    return (frozenset({Key("Pod", pod.name)}), 1.0) if wait <= 0 else (frozenset(), wait)


def _next_look(seen: Seen, spec: KernelSearchSpec, at: Clocks) -> float:
    """Seconds until the next moment at which time alone changes something."""
    ends = [clocks.patience_ends(at, spec.budget) if at.running else clocks.startup_ends(at, spec.budget)]
    limit = timedelta(seconds=spec.budget.unavailable_seconds)
    ends += [
        since + limit
        for kind in ("ModelReady", "VerifiersReady")
        if (since := conditions.since(seen.status, kind, "False"))
    ]
    left = [(each - seen.now).total_seconds() for each in ends if each is not None and each > seen.now]
    if spec.stop:
        left.append(2.0)
    return max(0.2, min([LOOK_AGAIN_SECONDS, *left]))


# ---- complete ----


def _over(seen: Seen, search: KernelSearch) -> Plan:
    """Nothing changes any more, except that its time to live ends."""
    ended = clocks.time(seen.status.get("completionTime"))
    ttl = search.spec.ttl_seconds_after_finished
    expired = ttl is not None and ended is not None and seen.now >= ended + timedelta(seconds=ttl)
    return Plan(tuple(_kept(seen, search)), None, finished=True, delete=expired)


def _status(seen: Seen, at: Clocks, told: list[Condition], phase: str) -> dict[str, Any]:
    """The operator's whole part of status."""
    generation = int(seen.metadata.get("generation", 0))
    return {
        "phase": phase,
        "conditions": conditions.written([*told, standing.degraded(seen.status)], seen.status, generation, seen.now),
        "observedGeneration": generation,
        **at.to_status(),
    }
