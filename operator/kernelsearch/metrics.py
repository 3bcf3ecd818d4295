"""Every metric that operator and runner export, its labels, and which of the two exports it.

Base units, prefix `kernelsearch_`. Never an attempt's number, a pod's name, a hash or an error's text as a label.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


class RunnerMetrics:
    """Of one search, exported by its runner.

    attempts_total{verdict} · tokens_total{kind} · generation_seconds · infrastructure_failures_total{service}
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "kernelsearch_runner_attempts", "Finished attempts by verdict.", ["verdict"], registry=registry
        )
        self.tokens = Counter("kernelsearch_runner_tokens", "Tokens paid for, by kind.", ["kind"], registry=registry)
        self.generation = Histogram(
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
