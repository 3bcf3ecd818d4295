"""A search whose ModelServer pod runs a real engine with a real, small model."""

import json
from datetime import datetime

import pytest
from following import following

import small_model
from cluster import images, system
from watching import attempts, complete, condition

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(900)]  # its weights lie on this machine
WEIGHTS = "/models/weights"
SECONDS = 100
MOST = 256
"""Tokens of an answer."""


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
        "model": {"name": WEIGHTS, "serve": serve, "sampling": {"maxTokens": MOST}},
        "verifiers": {"serve": {"device": "cpu"}},
        "search": {"chains": 1},
        "budget": {"deadlineSeconds": SECONDS, "gracePeriodSeconds": 10},
    }
    kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "real"}}
    return json.loads(json.dumps({**kind, "spec": spec}))


@pytest.fixture(scope="module")
def seen(shared, root):
    """The search's states from its beginning to its end, and what the engine counted meanwhile, by answer."""
    system.lend(shared.cluster, shared.name, "small-model", small_model.folder())
    states = []

    def ended(found):
        states.append(found)
        return complete(found)

    with following(shared, "-l", "app.kubernetes.io/component=model") as log:
        shared.apply(_search(root))
        shared.wait("real", ended, 600)
        return states, _counts(log)


def _counts(log):
    """The last that the engine said of each answer."""
    told = [json.loads(text) for _, text in log.lines if text.startswith('{"counted"')]
    return list({each["answer"]: each for each in told}.values())


def test_whatever_a_real_model_answers_is_classed_and_the_end_comes_on_time(seen):
    status = seen[0][-1]["status"]

    assert condition(seen[0][-1], "Complete")["reason"] in {"DeadlineReached", "NoCorrectKernel"}, status
    tally = status["attempts"]
    assert tally["total"] >= 1, status
    classes = {name: count for name, count in tally.items() if name not in {"total", "inFlight", "infrastructure"}}
    assert sum(classes.values()) == tally["total"], tally
    assert not tally.get("infrastructure"), tally
    ended, deadline = (datetime.fromisoformat(status[each]) for each in ("completionTime", "deadlineTime"))
    assert -1 < (ended - deadline).total_seconds() < 15


def test_tokens_are_those_that_the_engine_itself_counted(seen):
    """An answer that came to its end brings the engine's count with it, and that is ours. One that the deadline cut
    brings none: ours is then an estimate by its characters (`clients.draft`), of the same size.
    """
    states, counted = seen
    last = states[-1]["status"]
    whole = [each for each in counted if each["counted"] == "whole"]
    finished = whole[: last["attempts"]["total"]]  # one chain: one answer after another
    # As long as an answer is on its way, the one that the deadline cuts is not counted yet.
    before = [each["status"] for each in states if attempts(each) and each["status"]["attempts"]["inFlight"]]

    assert before
    for kind in ("prompt", "completion"):
        for each in before:
            ours = sum(answer[kind] for answer in finished[: each["attempts"]["total"]])
            assert each["tokens"][kind] == ours, (each, counted)
    rest = [each for each in counted if each not in finished]
    assert len(rest) <= 1, counted
    for kind, most in (("prompt", 0), ("completion", MOST)):
        estimated = last["tokens"][kind] - sum(answer[kind] for answer in finished)
        # Of one that was cut while it read its prompt the engine has not told how far it came.
        known = sum(most if each["counted"] == "asked" and most else each[kind] for each in rest)
        assert 0 <= estimated <= 2 * known, (last["tokens"], counted)
