"""A real Prometheus beside the pods of a test cluster, and every expression of ours to ask it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster import tools
from cluster.machine import Cluster, read
from watching import until

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
LIMIT = re.compile(r"\s*(?:>=|==|>)\s*[\d.]+")
ASK = """
import json, sys, urllib.parse, urllib.request
def ask(expression):
    query = urllib.parse.urlencode({"query": expression})
    return json.load(urllib.request.urlopen(f"http://127.0.0.1:PORT/api/v1/query?{query}", timeout=60))
print(json.dumps({where: ask(expression) for where, expression in json.load(sys.stdin).items()}))
""".replace("PORT", str(PORT))


class Prometheus:
    """In the cluster's own network, where its pods can be reached."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._entry = ["nsenter", "-t", str(read(cluster.state).pids[-1]), "-m", "-n", "-p", "--"]
        config = json.dumps(CONFIG).replace("PKI", str(cluster.state / "pki"))
        (folder / "prometheus.yml").write_text(config)
        arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        program = [str(tools.build(tools.PROMETHEUS)), *arguments, f"--web.listen-address=127.0.0.1:{PORT}"]
        self._log = folder / "log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen([*self._entry, *program], stdout=log, stderr=log)

    def listens(self) -> bool:
        return self._ask({"ready": "1"}).returncode == 0

    def _ask(self, expressions: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [*self._entry, sys.executable, "-c", ASK]
        return subprocess.run(command, input=json.dumps(expressions), capture_output=True, text=True, check=False)

    def with_data(self, expressions: Mapping[str, str]) -> set[str]:
        """Which of them, by name, have data now. Raises AssertionError for one that it does not understand."""
        done = self._ask(expressions)
        assert done.returncode == 0, f"{done.stderr}\n{self._log.read_text()[-2000:]}"
        answers: dict[str, Any] = json.loads(done.stdout)
        assert {where: each for where, each in answers.items() if each["status"] != "success"} == {}
        return {where for where, each in answers.items() if each["data"]["result"]}


@contextmanager
def scraping(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """For the block."""
    started = Prometheus(cluster, folder)
    try:
        until(started.listens)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def expressions(root: Path, namespace: str, name: str) -> dict[str, str]:
    """Of every dashboard's panels and every alert, by where they stand; a dashboard's variables are filled in."""
    found = {}
    for file in sorted((root / "charts/kernelsearch/files/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for number, target in enumerate(panel.get("targets", [])):
                found[f"{file.stem}: {panel['title']} {number}"] = target["expr"]
    for group in yaml.safe_load((root / "charts/kernelsearch/files/alerts.yaml").read_text())["groups"]:
        # An alert has data when it fires, which promtool tries; here it is enough that what it compares has.
        found |= {
            f"alert {rule['alert']}": f"({rule['expr']}) or ({LIMIT.sub('', rule['expr'])})" for rule in group["rules"]
        }
    variables = {"$__range": "10m", "$__rate_interval": "30s", "$namespace": namespace, "$name": name}
    for variable, value in variables.items():
        found = {where: expression.replace(variable, value) for where, expression in found.items()}
    return found
