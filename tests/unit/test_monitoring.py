"""Dashboards, alerts and monitors: every name exists, every expression parses, every alert has a page and a test."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

import chart
import kernelverify.metrics
from cluster import tools
from kernelsearch import metrics
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller import exposition, settings
from kernelsearch.controller.builders import runner, verifier_pool
from kernelsearch.controller.observe import Name, Observer

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(900)]  # builds helm and promtool if need be

ALERTS = chart.FOLDER / "files/alerts.yaml"
DASHBOARDS = sorted((chart.FOLDER / "files/dashboards").glob("*.json"))
RULE_TESTS = Path(__file__).parent / "rules/alerts.yaml"
ON = {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "rules", "dashboards")}
SUFFIXES = ("_total", "_bucket", "_sum", "_count", "")


def promtool(*arguments: str) -> None:
    program = tools.find(tools.PROMTOOL)
    if program is None:
        pytest.skip("no promtool: install it, or build the tests' own by `make cluster-build`")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Every expression with where it stands; Grafana's variables replaced by values."""
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = re.sub(r"\$__(rate_interval|range)", "1h", target["expr"])
                yield f"{path.stem}: {panel['title']}", re.sub(r"\$(namespace|name)\b", "x", expression)


def exported() -> set[str]:
    """Names of everything that operator, runner and verifier export."""
    registry = CollectorRegistry()
    metrics.OperatorMetrics(registry)
    metrics.RunnerMetrics(registry)
    registry.register(exposition.Exposition(Observer()))
    families = [*registry.collect(), *kernelverify.metrics.Metrics().registry.collect()]
    return {family.name for family in families}


# ---- expressions ----


def test_every_metric_exists():
    names = {(place, name) for place, query in queries() for name in re.findall(r"\bkernelsearch_\w+", query)}
    known = {family + suffix for family in exported() for suffix in SUFFIXES}

    assert len(names) > 30
    assert {(place, name) for place, name in names if name not in known} == set()


def test_every_expression_parses(tmp_path):
    named = [{"record": f"q:{n}", "expr": query} for n, (_, query) in enumerate(queries())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": named}]}))

    promtool("check", "rules", str(file))


# ---- alerts ----


def test_alerts_fire_when_they_should():
    promtool("test", "rules", str(RULE_TESTS))


def test_every_alert_is_tried():
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}

    assert fired == {rule["alert"] for rule in rules()}


def test_every_alert_has_its_runbook_and_every_runbook_its_alert(root):
    pages = {f"docs/runbooks/{path.name}" for path in (root / "docs/runbooks").glob("*.md")}

    assert {rule["annotations"]["runbook_url"] for rule in rules()} == pages
    for rule in rules():
        text = (root / rule["annotations"]["runbook_url"]).read_text()
        assert text.startswith(f"# {rule['alert']}\n")


def test_the_rule_is_the_file_with_links_to_your_runbooks(tmp_path):
    values = {"metrics": {**ON, "rules": {"enabled": True, "runbooks": "https://runbooks.example.com/ks/"}}}
    (made,) = chart.render(tmp_path, values).all("PrometheusRule")

    text = ALERTS.read_text().replace("docs/runbooks", "https://runbooks.example.com/ks")
    assert made["spec"] == yaml.safe_load(text)


def test_without_a_place_of_runbooks_no_alert_has_a_dead_link(tmp_path):
    (made,) = chart.render(tmp_path, {"metrics": ON}).all("PrometheusRule")

    made_rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert [each["alert"] for each in made_rules] == [each["alert"] for each in rules()]
    assert all("summary" in each["annotations"] and "runbook_url" not in each["annotations"] for each in made_rules)


# ---- dashboards ----


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_works_where_it_is_put(path):
    board = json.loads(path.read_text())

    assert board["uid"] == f"kernelsearch-{path.stem}"
    assert "__inputs" not in board
    first, *_ = board["templating"]["list"]
    assert (first["name"], first["type"]) == ("datasource", "datasource")
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({each["id"] for each in board["panels"]}) == len(board["panels"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_panels_do_not_overlap():
    for path in DASHBOARDS:
        places = [each["gridPos"] for each in json.loads(path.read_text())["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
        assert len(cells) == len(set(cells))


def test_grafanas_sidecar_finds_the_dashboards(tmp_path):
    values = {"metrics": {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "GPU"}}}}

    made = chart.render(tmp_path, values).all("ConfigMap", grafana_dashboard="1")

    assert [list(each["data"]) for each in made] == [[path.name] for path in DASHBOARDS]
    for each, path in zip(made, DASHBOARDS, strict=True):
        assert each["metadata"]["annotations"] == {"grafana_folder": "GPU"}
        assert json.loads(each["data"][path.name]) == json.loads(path.read_text())


# ---- monitors ----


def test_nothing_of_the_prometheus_operator_is_made_unasked(tmp_path):
    kinds = {each["kind"] for each in chart.render(tmp_path).objects}

    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


def test_the_service_monitor_finds_the_operator(tmp_path):
    found = chart.render(tmp_path, {"metrics": ON})

    monitor = found.one("ServiceMonitor", "kernelsearch-operator")["spec"]
    service = found.one("Service", "kernelsearch-operator")
    pod = found.one("Deployment", "kernelsearch-operator")["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert monitor["endpoints"][0]["honorLabels"] is True
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]


def owner(kind: str) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "n", "uid": "u"}
    return {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": kind, "metadata": metadata}


def workloads(root: Path) -> list[dict[str, Any]]:
    """A runner's pod and a verifier's."""
    given = settings.Settings(operator_image="a", verifier_image="b")
    text = (root / "examples/quickstart.yaml").read_text()
    search = KernelSearch.model_validate_json(json.dumps(yaml.safe_load(text)))
    pool = VerifierPool.model_validate_json(json.dumps({**owner("VerifierPool"), "spec": {"device": "cpu"}}))
    deployment = verifier_pool.deployment(owner("VerifierPool"), pool, given, 1, "issuer")
    return [runner.pod(owner("KernelSearch"), search, given, "url", "host:1", 0), deployment["spec"]["template"]]


def test_the_pod_monitor_finds_runners_and_verifiers(tmp_path, root):
    spec = chart.render(tmp_path, {"metrics": ON}).one("PodMonitor", "kernelsearch-operator-workloads")["spec"]

    (component,) = spec["selector"]["matchExpressions"]
    ports = {each["port"] for each in spec["podMetricsEndpoints"]}
    for pod in workloads(root):
        labels = pod["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert labels[component["key"]] in component["values"]
        assert set(spec["podTargetLabels"]) <= labels.keys()
        assert {each["name"] for each in pod["spec"]["containers"][0]["ports"]} <= ports


@pytest.mark.parametrize(("watched", "selector"), [([], {"any": True}), (["a", "b"], {"matchNames": ["a", "b"]})])
def test_pods_are_looked_for_where_searches_run(watched, selector, tmp_path):
    found = chart.render(tmp_path, {"watchNamespaces": watched, "metrics": ON})

    assert found.one("PodMonitor", "kernelsearch-operator-workloads")["spec"]["namespaceSelector"] == selector


def test_labels_by_which_a_prometheus_selects_arrive(tmp_path):
    labels = {"additionalLabels": {"release": "prometheus"}}
    values = {name: {"enabled": True, **labels} for name in ("serviceMonitor", "podMonitor", "rules")}

    found = chart.render(tmp_path, {"metrics": values})

    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        (made,) = found.all(kind)
        assert made["metadata"]["labels"]["release"] == "prometheus"


def test_an_object_is_shown_under_its_own_name():
    observer = Observer()
    observer.ours = {Name("ModelServer", "n", "m"): [owner("ModelServer") | {"status": {"users": 2}}]}

    families = list(exposition.Exposition(observer).collect())

    (users,) = [each for each in families if each.name == "kernelsearch_model_server_users"]
    assert [(each.labels, each.value) for each in users.samples] == [({"namespace": "n", "name": "x"}, 2.0)]
