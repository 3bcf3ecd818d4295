"""What a verifier exports on /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kernelverify_api.report import Report, Status


class Metrics:
    """Owns its registry, so that two services in one process do not meet.

    kernelsearch_verifier_evaluations_total{status}      finished evaluations
    kernelsearch_verifier_stage_seconds{stage}           time by stage of those that ran
    kernelsearch_verifier_flags_total{rule}              integrity flags raised
    kernelsearch_verifier_queue_length                   jobs waiting
    kernelsearch_verifier_lanes_ready                    lanes with a live referee
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "kernelsearch_verifier"
        self._evaluations = Counter(f"{name}_evaluations", "Finished evaluations", ["status"], registry=self.registry)
        buckets = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        self._stages = Histogram(
            f"{name}_stage_seconds", "Seconds by stage", ["stage"], buckets=buckets, registry=self.registry
        )
        self._flags = Counter(f"{name}_flags", "Integrity flags", ["rule"], registry=self.registry)
        for status in Status:  # `increase()` does not see a series that is born at 1
            self._evaluations.labels(status.value)
        self.queue = Gauge(f"{name}_queue_length", "Jobs waiting", registry=self.registry)
        self.lanes = Gauge(f"{name}_lanes_ready", "Lanes with a live referee", registry=self.registry)

    def count(self, report: Report) -> None:
        self._evaluations.labels(report.status.value).inc()
        for stage, milliseconds in report.stages_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1e3)
        for flag in report.integrity.flags:
            self._flags.labels(flag.rule).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
