"""`/metrics` and `/healthz`: read from the index at scrape time, so that nothing is stale after a delete.

Served on kopf's own loop: a server in another thread would iterate an index that changes under it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.observe import Observer
from kernelsearch.controller.plan import clocks, conditions

MOST_SEARCHES = 1000
"""Series of single searches; beyond it they are dropped and counted: those first that ended longest ago."""
SHUTDOWN_S = 2.0
"""For a request in flight when the operator ends; without this, whoever reads slowly holds it up for a minute."""
NO_RESULTS = {"total", "inFlight", "infrastructure"}
"""Counts beside the verdicts: a sum over all results is the number of attempts."""


class Exposition(Collector):
    """What is true of our objects now."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def collect(self) -> Iterator[Metric]:
        searches = self._observer.all("KernelSearch")
        yield _by_phase(searches)
        yield from _single(sorted(searches, key=_interest, reverse=True)[:MOST_SEARCHES])
        dropped = GaugeMetricFamily("kernelsearch_searches_dropped", "Searches without series of their own.")
        dropped.add_metric([], max(0, len(searches) - MOST_SEARCHES))
        yield dropped
        for kind, prefix in (("ModelServer", "model_server"), ("VerifierPool", "verifier_pool")):
            yield from _shared(self._observer.all(kind), prefix)


def _interest(search: Manifest) -> tuple[bool, str]:
    """Greater for what somebody looks at: what has not ended, then what ended last."""
    status = search.get("status") or {}
    return not conditions.holds(status, "Complete"), str(status.get("completionTime", ""))


def _by_phase(searches: list[Manifest]) -> Metric:
    family = GaugeMetricFamily("kernelsearch_searches", "Searches by phase.", labels=["namespace", "phase"])
    phases = Counter((each["metadata"]["namespace"], _phase(each.get("status") or {})) for each in searches)
    for labels, count in phases.items():
        family.add_metric(list(labels), count)
    return family


def _single(searches: list[Manifest]) -> Iterator[Metric]:
    labels = ["namespace", "name"]
    info = GaugeMetricFamily("kernelsearch_search_info", "Always 1.", labels=[*labels, "phase", "model"])
    best = GaugeMetricFamily("kernelsearch_search_best_speedup_ratio", "Speed-up of the best kernel.", labels=labels)
    attempts = GaugeMetricFamily("kernelsearch_search_attempts", "Attempts by result.", labels=[*labels, "result"])
    flying = GaugeMetricFamily("kernelsearch_search_attempts_in_flight", "Asked, not judged yet.", labels=labels)
    failures = GaugeMetricFamily(
        "kernelsearch_search_infrastructure_failures", "Calls to model or verifier that failed.", labels=labels
    )
    tokens = GaugeMetricFamily("kernelsearch_search_tokens", "Tokens paid for.", labels=[*labels, "kind"])
    start = GaugeMetricFamily("kernelsearch_search_start_timestamp_seconds", "When it was accepted.", labels=labels)
    deadline = GaugeMetricFamily("kernelsearch_search_deadline_timestamp_seconds", "When it ends.", labels=labels)
    for each in searches:
        status, place = each.get("status") or {}, [each["metadata"]["namespace"], each["metadata"]["name"]]
        info.add_metric([*place, _phase(status), str(each["spec"]["model"]["name"])], 1)
        if speedup := (status.get("best") or {}).get("speedup"):
            best.add_metric(place, float(speedup))
        counts = status.get("attempts") or {}
        for result in counts.keys() - NO_RESULTS:
            attempts.add_metric([*place, result], counts[result])
        flying.add_metric(place, counts.get("inFlight", 0))
        failures.add_metric(place, counts.get("infrastructure", 0))
        for kind, count in (status.get("tokens") or {}).items():
            tokens.add_metric([*place, kind], count)
        for family, name in ((start, "startTime"), (deadline, "deadlineTime")):
            if moment := clocks.time(status.get(name)):
                family.add_metric(place, moment.timestamp())
    yield from (info, best, attempts, flying, failures, tokens, start, deadline)


def _phase(status: Mapping[str, Any]) -> str:
    return str(status.get("phase", "Pending"))


def _shared(objects: list[Manifest], prefix: str) -> Iterator[Metric]:
    labels = ["namespace", "name"]
    ready = GaugeMetricFamily(f"kernelsearch_{prefix}_ready", "1 when it answers.", labels=labels)
    users = GaugeMetricFamily(f"kernelsearch_{prefix}_users", "Searches that use it now.", labels=labels)
    for each in objects:
        status, place = each.get("status") or {}, [each["metadata"]["namespace"], each["metadata"]["name"]]
        ready.add_metric(place, float(conditions.holds(status, "Ready")))
        users.add_metric(place, float(status.get("users", 0)))
    yield from (ready, users)


class Health:
    """Why the operator should be restarted; empty while all is well."""

    def __init__(self) -> None:
        self.trouble = ""


async def serve(registry: CollectorRegistry, health: Health, port: int) -> web.AppRunner:
    """Started; clean it up to stop."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text=health.trouble or "ok\n", status=503 if health.trouble else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
