"""The definitions as a real API server reads them."""

import json
import time

import pytest
import yaml


@pytest.fixture
def quickstart(root):
    return yaml.safe_load((root / "examples/quickstart.yaml").read_text())


def test_an_example_is_accepted_and_its_defaults_are_filled_in(namespace, quickstart):
    namespace.apply(quickstart)

    spec = namespace.get("ksearch", "quickstart")["spec"]
    assert spec["budget"]["startupDeadlineSeconds"] == 3600
    assert spec["kernel"]["customKernel"] == "Required"
    assert spec["model"]["sampling"] == {"temperature": "0.6", "topP": "0.95", "maxTokens": 32768}


def test_the_spec_is_fixed_once_the_search_has_started(namespace, quickstart):
    namespace.apply(quickstart)
    started = '{"status": {"startTime": "2026-01-01T00:00:00Z"}}'
    namespace.kubectl("patch", "ksearch", "quickstart", "--subresource=status", "--type=merge", "-p", started)

    for change in (
        {"model": {"name": "another"}},
        {"search": {"chains": 7}},
        {"baselines": ["eager", "compile"]},
        {"archive": {"url": "s3://bucket/place"}},
        {"queueName": "late"},
    ):
        patch = json.dumps({"spec": change})
        told = namespace.kubectl("patch", "ksearch", "quickstart", "--type=merge", "-p", patch, check=False)
        assert "cannot change once the search has started" in told, change
    quickstart["spec"]["budget"]["deadlineSeconds"] = 30
    namespace.apply(quickstart)

    assert namespace.get("ksearch", "quickstart")["spec"]["budget"]["deadlineSeconds"] == 30


def test_the_start_time_cannot_be_removed(namespace, quickstart):
    namespace.apply(quickstart)
    for patch in ('{"status": {"startTime": "2026-01-01T00:00:00Z"}}', '{"status": {"startTime": null}}'):
        told = namespace.kubectl(
            "patch", "ksearch", "quickstart", "--subresource=status", "--type=merge", "-p", patch, check=False
        )

    assert "status.startTime cannot be removed" in told


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("spec.budget.deadlineSeconds", "Default 900"),
        ("status.best.speedup", "How many times as fast as the fastest baseline"),
    ],
)
def test_explain_tells_what_a_field_means(namespace, field, words):
    def told():
        return " ".join(namespace.kubectl("explain", f"ksearch.{field}", check=False).split())

    deadline = time.monotonic() + 20  # the API server publishes a new definition's documentation when it has time
    while words not in told():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


def test_the_columns_of_get_are_there(namespace, quickstart):
    namespace.apply(quickstart)

    header = namespace.kubectl("get", "ksearch").splitlines()[0].split()

    assert header == ["NAME", "PHASE", "SPEEDUP", "SOLVED", "ATTEMPTS", "DEADLINE", "MODEL", "AGE"]


def test_every_example_is_accepted(namespace, root):
    files = sorted((root / "examples").glob("*.yaml"))

    told = "".join(namespace.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(f)) for f in files)

    assert told.count("created") >= len(files) >= 5
