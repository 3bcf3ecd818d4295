"""A real Prometheus scrapes operator, runner and verifier, and every expression of ours finds data in it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from steady import script, search

from cluster import tools
from cluster.machine import read
from watching import complete

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(600)]  # Prometheus enters the node
PORT = 19090
CONFIG = {
    "global": {"scrape_interval": "1s"},
    "scrape_configs": [
        {
            "job_name": "kernelsearch",
            "honor_labels": True,
            "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": "PKI/admin-inside.kubeconfig"}],
            "relabel_configs": [
                {
                    "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
                    "regex": "operator|runner|verifier",
                    "action": "keep",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"],
                    "regex": "kernelsearch",
                    "action": "keep",
                },
                {
                    "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                    "regex": "http|metrics",
                    "action": "keep",
                },
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }
    ],
}
ASK = """
import sys, urllib.parse, urllib.request
query = urllib.parse.urlencode({"query": sys.argv[1]})
print(urllib.request.urlopen(f"http://127.0.0.1:PORT/api/v1/query?{query}", timeout=10).read().decode())
""".replace("PORT", str(PORT))


@pytest.fixture
def prometheus(cluster, tmp_path):
    """In the cluster's own network, where its pods can be reached."""
    config = json.dumps(CONFIG).replace("PKI", str(cluster.state / "pki"))
    (tmp_path / "prometheus.yml").write_text(config)
    arguments = [
        *(f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"),
        f"--web.listen-address=127.0.0.1:{PORT}",
    ]
    pid = str(read(cluster.state).pids[-1])
    entry = ["nsenter", "-t", pid, "-m", "-n", "-p", "--"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*entry, str(tools.build(tools.PROMETHEUS)), *arguments], stdout=log, stderr=log)

    def query(expression):
        done = subprocess.run(
            [*entry, sys.executable, "-c", ASK, expression], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{(tmp_path / 'log').read_text()[-2000:]}"
        answer = json.loads(done.stdout)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    yield query
    process.kill()
    process.wait()


def expressions(root: Path) -> dict[str, str]:
    """Of every dashboard's panels and every alert, by where they stand."""
    found = {}
    for file in sorted((root / "charts/kernelsearch/files/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for number, target in enumerate(panel.get("targets", [])):
                found[f"{file.stem}: {panel['title']} {number}"] = target["expr"]
    for group in yaml.safe_load((root / "charts/kernelsearch/files/alerts.yaml").read_text())["groups"]:
        found |= {f"alert {rule['alert']}": rule["expr"] for rule in group["rules"]}
    return found


def test_every_expression_is_understood_and_every_panel_has_data(place, root, prometheus):
    place.apply(script(), search(root, budget={"deadlineSeconds": 40, "gracePeriodSeconds": 5}))
    place.wait("steady", lambda found: found.get("status", {}).get("attempts", {}).get("total", 0) >= 3, 150)
    time.sleep(3)

    def filled(expression):
        variables = {"$__range": "10m", "$__rate_interval": "30s", "$namespace": place.name, "$name": "steady"}
        for name, value in variables.items():
            expression = expression.replace(name, value)
        return expression

    wanted = expressions(root)
    with_data = {where for where, expression in wanted.items() if prometheus(filled(expression))}
    place.wait("steady", complete, 150)
    time.sleep(3)
    with_data |= {where for where, expression in wanted.items() if prometheus(filled(expression))}

    # An alert without data is one that does not fire; it is tried by promtool with its own data.
    empty = {where for where in wanted if where not in with_data and not where.startswith("alert ")}
    assert {where: wanted[where] for where in empty if not excused(where)} == {}


def excused(where):
    return any(where.startswith(name) for name in WHY_EMPTY)


UNTIMED = "Triton runs by interpreter on a CPU: right or wrong, but never timed, so there is no speed-up"
WHY_EMPTY = {
    "search: Best speed-up": UNTIMED,
    "solve-rate: Best speed-ups": UNTIMED,
    "solve-rate: Median best speed-up": UNTIMED,
}
"""By the beginning of its name: why a panel cannot have data in this run."""
