"""What operator and runner export: read from objects at scrape time, named by one rule, born at zero."""

import re

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kernelsearch import metrics
from kernelsearch.controller import exposition
from kernelsearch.controller.observe import Name, Observer
from kernelsearch.search import population, ports


def search(name: str = "a", namespace: str = "n", **status: object) -> dict:
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "KernelSearch", "metadata": metadata, "spec": {"model": {"name": "r1"}}, "status": status}


def exported(*bodies: dict) -> dict[str, dict[tuple, float]]:
    """Samples by name and labels, as Prometheus would read them."""
    observer = Observer()
    observer.ours = {
        Name(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]): [each] for each in bodies
    }
    registry = CollectorRegistry()
    registry.register(exposition.Exposition(observer))
    return samples(registry)


def samples(registry: CollectorRegistry) -> dict[str, dict[tuple, float]]:
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for each in family.samples:
            found.setdefault(each.name, {})[tuple(sorted(each.labels.items()))] = each.value
    return found


def test_attempts_add_up_to_their_total():
    attempts = {"total": 5, "correct": 2, "incorrect": 2, "rewardHack": 1, "inFlight": 3, "infrastructure": 7}

    found = exported(search(attempts=attempts))

    assert sum(found["kernelsearch_search_attempts"].values()) == 5
    assert list(found["kernelsearch_search_attempts_in_flight"].values()) == [3]
    assert list(found["kernelsearch_search_infrastructure_failures"].values()) == [7]


def test_a_search_shows_its_phase_and_its_clock():
    found = exported(search(phase="Running", startTime="1970-01-01T00:01:00Z", deadlineTime="1970-01-01T00:16:00Z"))

    place = (("name", "a"), ("namespace", "n"))
    assert found["kernelsearch_search_info"] == {(("model", "r1"), *place, ("phase", "Running")): 1}
    assert found["kernelsearch_search_start_timestamp_seconds"] == {place: 60}
    assert found["kernelsearch_search_deadline_timestamp_seconds"] == {place: 960}


def test_searches_are_counted_by_namespace_and_phase():
    found = exported(search("a", phase="Running"), search("b", phase="Running"), search("c", namespace="m"))

    assert found["kernelsearch_searches"] == {
        (("namespace", "n"), ("phase", "Running")): 2,
        (("namespace", "m"), ("phase", "Pending")): 1,
    }


def test_series_are_bounded_and_the_rest_is_counted():
    found = exported(*(search(f"s{n}") for n in range(exposition.MOST_SEARCHES + 3)))

    assert len(found["kernelsearch_search_info"]) == exposition.MOST_SEARCHES
    assert found["kernelsearch_searches_dropped"] == {(): 3}


def test_what_ended_long_ago_makes_room_for_what_runs():
    over = {"conditions": [{"type": "Complete", "status": "True"}]}
    ended = [search(f"s{n:04}", completionTime=f"2026-01-01T00:00:00.{n:06}Z", **over) for n in range(1000)]

    found = exported(*ended, search("runs", phase="Running"))

    shown = {dict(labels)["name"] for labels in found["kernelsearch_search_info"]}
    assert "runs" in shown
    assert {each["metadata"]["name"] for each in ended} - shown == {"s0000"}


def test_a_series_is_born_at_zero():
    registry = CollectorRegistry()
    metrics.OperatorMetrics(registry)
    metrics.RunnerMetrics(registry)

    found = samples(registry)
    for name in (
        "kernelsearch_reconciles_total",
        "kernelsearch_watch_stalled_total",
        "kernelsearch_searches_finished_total",
        "kernelsearch_runner_attempts_total",
        "kernelsearch_runner_infrastructure_failures_total",
    ):
        assert set(found[name].values()) == {0.0}


def test_the_runner_knows_every_verdict_and_service():
    assert set(metrics.VERDICTS) == {each.value for each in population.Verdict} - {"cut"}
    assert set(metrics.SERVICES) == {each.value for each in ports.Service}


def test_names_have_our_prefix():
    registry = CollectorRegistry()
    metrics.OperatorMetrics(registry)
    metrics.RunnerMetrics(registry)

    assert [name for name in samples(registry) if not re.fullmatch("kernelsearch_[a-z_]+", name)] == []
