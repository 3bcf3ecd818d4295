"""A search whose ModelServer pod runs a real engine with a real, small model."""

import json
from datetime import datetime

import pytest

import small_model
from cluster import images, system
from watching import complete, condition

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(900)]  # its weights lie on this machine
WEIGHTS = "/models/weights"
SECONDS = 180


def _search(root):
    serve = {
        "image": images.VERIFIER.reference,
        "command": small_model.command(WEIGHTS, "0.0.0.0", 8000),
        "args": [],
        "weights": {"pvc": "small-model"},
        "podTemplate": {
            "spec": {
                "volumes": [{"name": "torch", "persistentVolumeClaim": {"claimName": system.CLAIM, "readOnly": True}}],
                "containers": [
                    {
                        "name": "model",
                        "env": [
                            {"name": name, "value": value}
                            for name, value in small_model.environment("/models/site", system.SITE, home="/tmp").items()
                        ],
                        "volumeMounts": [{"name": "torch", "mountPath": system.SITE, "readOnly": True}],
                        "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
                    }
                ],
            }
        },
    }
    spec = {
        "problem": {"inline": {"reference": (root / "tests/problems/multiply_add.py").read_text()}},
        "kernel": {"languages": ["triton"]},
        "model": {"name": WEIGHTS, "serve": serve, "sampling": {"maxTokens": 256}},
        "verifiers": {"serve": {"device": "cpu"}},
        "search": {"chains": 1},
        "budget": {"deadlineSeconds": SECONDS, "gracePeriodSeconds": 10},
    }
    kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "real"}}
    return json.loads(json.dumps({**kind, "spec": spec}))


def test_whatever_a_real_model_answers_is_classed_and_the_end_comes_on_time(place, root):
    system.lend(place.cluster, place.name, "small-model", small_model.folder())

    place.apply(_search(root))
    found = place.wait("real", complete, 600)

    status = found["status"]
    assert condition(found, "Complete")["reason"] in {"DeadlineReached", "NoCorrectKernel"}, status
    attempts = status["attempts"]
    assert attempts["total"] >= 1, status
    classes = {name: count for name, count in attempts.items() if name not in {"total", "inFlight", "infrastructure"}}
    assert sum(classes.values()) == attempts["total"], attempts
    assert not attempts.get("infrastructure"), attempts
    assert status["tokens"]["prompt"] > 0
    assert 0 < status["tokens"]["completion"] <= 256 * (attempts["total"] + 1)
    ended, deadline = (datetime.fromisoformat(status[each]) for each in ("completionTime", "deadlineTime"))
    assert -1 < (ended - deadline).total_seconds() < 15
