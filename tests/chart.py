"""The chart, rendered by the real helm: for tests of what it says, and of what a cluster makes of it."""

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import tools

FOLDER = Path(__file__).resolve().parent.parent / "charts/kernelsearch"
NAMESPACE = "system"
EVERYTHING: dict[str, Any] = {
    "global": {"imageRegistry": "registry.example.com/team/"},
    "image": {"digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
    "verifierImage": {"tag": "cuda"},
    "imagePullSecrets": ["registry"],
    "proxy": {"https": "http://proxy.example.com:3128", "noProxy": "example.com"},
    "operator": {
        "priorityClassName": "important",
        "nodeSelector": {"role": "system"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "podLabels": {"team": "kernels"},
        "env": [{"name": "TZ", "value": "UTC"}],
    },
    "policy": {
        "allowedImages": ["registry.example.com/"],
        "allowedEndpointHosts": ["*.example.com"],
        "allowCustomEngine": False,
        "requireRuntimeClass": "gvisor",
        "maxReplicas": 4,
    },
    "networkPolicy": {
        "apiServerCIDRs": ["10.0.0.1/32"],
        "externalPorts": [443, 8443],
        "scrapeFrom": [{"namespaceSelector": {}}],
        "dnsPorts": [5353],
    },
    "runner": {
        "nodeSelector": {"role": "searches"},
        "tolerations": [{"key": "searches", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "searches",
    },
    "model": {"scratch": "1Ti"},
    "verifier": {"extraVolumes": [{"name": "x"}], "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}]},
    "metrics": {
        "serviceMonitor": {"enabled": True, "additionalLabels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "additionalLabels": {"release": "prometheus"}},
        "rules": {"enabled": True, "additionalLabels": {"release": "prometheus"}},
        "dashboards": {"enabled": True},
    },
}
"""A value for each thing that can be switched or set."""


class RefusedError(Exception):
    """Helm refuses the values or the chart; the message is its own."""


@dataclass(frozen=True)
class Rendered:
    """The objects of one release, hooks included."""

    objects: tuple[dict[str, Any], ...]

    def all(self, kind: str, **labels: str) -> list[dict[str, Any]]:
        return [
            each
            for each in self.objects
            if each["kind"] == kind and labels.items() <= (each["metadata"].get("labels") or {}).items()
        ]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        return found


def program() -> str:
    """Helm."""
    if found := tools.find(tools.HELM):
        return found
    pytest.skip("no helm: install it, or build the tests' own by `make cluster-build`")


def helm(*arguments: str, home: Path) -> str:
    """What it said. Raises RefusedError."""
    folders = {f"HELM_{each}_HOME": str(home / each.lower()) for each in ("CACHE", "CONFIG", "DATA")}
    command = [program(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **folders})
    if done.returncode != 0:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


def render(home: Path, values: dict[str, Any] | None = None, more: Iterable[str] = ()) -> Rendered:
    """The chart with these values. Raises RefusedError."""
    file = home / "values.yaml"
    file.write_text(yaml.safe_dump(values or {}))
    text = helm("template", "kernelsearch", str(FOLDER), "-n", NAMESPACE, "-f", str(file), *more, home=home)
    return Rendered(tuple(filter(None, yaml.safe_load_all(text))))
