"""Every metric that operator and runner export, its labels, and which of the two exports it.

Base units, prefix `kernelsearch_`. Never an attempt's number, a pod's name, a hash or an error's text as a label.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import kernelsearch

VERDICTS = (
    *("correct", "incorrect", "compile_error", "runtime_error", "timeout", "reward_hack", "suspicious"),
    *("no_code", "truncated"),
)
SERVICES = ("model", "verifier", "store", "archive", "progress")
RECONCILED = ("KernelSearch", "ModelServer", "VerifierPool")
WATCHED = (
    *RECONCILED,
    *("Pod", "Service", "ConfigMap", "ServiceAccount", "Deployment", "NetworkPolicy", "Role", "RoleBinding"),
)
SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


class RunnerMetrics:
    """Of one search, exported by its runner.

    attempts_total{verdict} · tokens_total{kind} · attempt_seconds · infrastructure_failures_total{service} ·
    best_speedup_ratio
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "kernelsearch_runner_attempts", "Finished attempts by verdict.", ["verdict"], registry=registry
        )
        self.tokens = Counter("kernelsearch_runner_tokens", "Tokens paid for, by kind.", ["kind"], registry=registry)
        self.seconds = Histogram(
            "kernelsearch_runner_attempt_seconds",
            "From prompt to verdict.",
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "kernelsearch_runner_infrastructure_failures",
            "Calls that failed and were repeated, by service.",
            ["service"],
            registry=registry,
        )
        self.best = Gauge(
            "kernelsearch_runner_best_speedup_ratio", "Speed-up of the best kernel so far.", registry=registry
        )
        for verdict in VERDICTS:  # `increase()` does not see a series that is born at 1
            self.attempts.labels(verdict)
        for service in SERVICES:
            self.failures.labels(service)


class OperatorMetrics:
    """Of the operator itself. What is true of objects comes from `controller.exposition`, read at scrape time.

    reconciles_total{kind,result} · reconcile_duration_seconds{kind} · searches_finished_total{reason,solved} ·
    time_to_first_correct_seconds · watch_stalled_total{kind} · api_unreachable_total · build_info{version}
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reconciles = Counter(
            "kernelsearch_reconciles", "Passes by kind and result.", ["kind", "result"], registry=registry
        )
        self.duration = Histogram(
            "kernelsearch_reconcile_duration_seconds",
            "Length of a pass and of its wait for its turn.",
            ["kind"],
            registry=registry,
        )
        self._finished = Counter(
            "kernelsearch_searches_finished",
            "Searches that ended, by reason and whether a correct kernel was found.",
            ["reason", "solved"],
            registry=registry,
        )
        self.first_correct = Histogram(
            "kernelsearch_time_to_first_correct_seconds",
            "Search clock until the first correct kernel, of finished searches that found one.",
            buckets=SECONDS,
            registry=registry,
        )
        self.stalled = Counter(
            "kernelsearch_watch_stalled", "Watches that missed a change twice.", ["kind"], registry=registry
        )
        self.unreachable = Counter(
            "kernelsearch_api_unreachable", "Checks that the API server did not answer.", registry=registry
        )
        build = Gauge("kernelsearch_build_info", "Always 1.", ["version"], registry=registry)
        build.labels(kernelsearch.__version__).set(1)
        for kind in WATCHED:
            self.stalled.labels(kind)
        for kind in RECONCILED:
            for result in ("ok", "conflict", "error"):
                self.reconciles.labels(kind, result)
        for reason in FINISHED:  # `increase()` does not see a series that is born at 1
            for solved in ("true", "false"):
                self._finished.labels(reason, solved)

    def count_finished(self, status: Mapping[str, Any], reason: str, *, solved: bool) -> None:
        """Once a search, by the pass that wrote `Complete`; `solved` as its condition says."""
        self._finished.labels(reason, str(solved).lower()).inc()
        if status.get("firstCorrectSeconds") is not None:
            self.first_correct.observe(status["firstCorrectSeconds"])


FINISHED = (
    *("TargetReached", "DeadlineReached", "BudgetExhausted", "AttemptsExhausted", "NoCorrectKernel"),
    *("StartupDeadlineExceeded", "ProblemUnsolvable", "InvalidSpec", "ModelUnavailable", "VerifiersUnavailable"),
    "Cancelled",
)
"""Reasons of `Complete`."""
