"""Children as whole objects: what is in a pod, and what may not be put there."""

import pytest

from cluster_objects import SETTINGS, read, search
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller.builders import model_server, network, owned, runner, template, verifier_pool
from kernelsearch.controller.plan import model_server as plan_model
from kernelsearch.controller.settings import RunnerDefaults

BODY = search()
OWNER = {"apiVersion": "kernelsearch.dev/v1alpha1", "metadata": {"name": "demo", "namespace": "ns", "uid": "u1"}}
TEMPLATE = {
    "metadata": {"labels": {"team": "x"}},
    "spec": {
        "nodeSelector": {"pool": "gpu"},
        "volumes": [{"name": "data", "configMap": {"name": "data"}}],
        "containers": [
            {"volumeMounts": [{"name": "data", "mountPath": "/data"}], "env": [{"name": "A", "value": "1"}]}
        ],
    },
}


def server(**spec):
    whole = {**OWNER, "kind": "ModelServer", "spec": {"model": "r1", "preset": "replay", **spec}}
    return whole, ModelServer.model_validate_json(_json({**whole, "metadata": {"name": "demo"}}))


def pool(**spec):
    whole = {**OWNER, "kind": "VerifierPool", "spec": {"device": "cpu", **spec}}
    return whole, VerifierPool.model_validate_json(_json({**whole, "metadata": {"name": "demo"}}))


def _json(value):
    import json

    return json.dumps(value)


def model_pod(**spec):
    owner, read_ = server(**spec)
    serving = model_server.Serving.resolve(read_, SETTINGS.presets.get("replay", {}), SETTINGS.operator_image)
    return model_server.deployment(owner, read_, serving, SETTINGS, 1)["spec"]["template"]


def verifier_pod(**spec):
    owner, read_ = pool(**spec)
    return verifier_pool.deployment(owner, read_, SETTINGS, 1, "https://issuer")["spec"]["template"]


def runner_pod(**spec):
    body = search(**spec)
    return runner.pod(body, read(body), SETTINGS, "http://model/v1", "pool.ns.svc:8000", 0)


@pytest.mark.parametrize("pod", [model_pod(), verifier_pod(), runner_pod()], ids=["model", "verifier", "runner"])
def test_every_pod_meets_the_restricted_standard(pod):
    spec = pod["spec"]
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all("hostPath" not in volume for volume in spec["volumes"])
    names = [volume["name"] for volume in spec["volumes"]]
    assert len(names) == len(set(names))


def test_only_the_runner_has_a_token_for_the_api_server():
    def tokens(pod):
        sources = [s for v in pod["spec"]["volumes"] for s in v.get("projected", {}).get("sources", ())]
        return [s["serviceAccountToken"].get("audience") for s in sources if "serviceAccountToken" in s]

    assert tokens(model_pod()) == tokens(verifier_pod()) == []
    assert tokens(runner_pod()) == [None, "kernelsearch-verifier"]


def test_a_secret_is_mounted_and_never_read():
    endpoint = {"url": "https://x/v1", "apiKeySecretRef": {"name": "key", "key": "token"}}
    pod = runner_pod(model={"name": "r1", "endpoint": endpoint})

    volume = next(each for each in pod["spec"]["volumes"] if each["name"] == "model")
    assert volume["secret"] == {"secretName": "key", "items": [{"key": "token", "path": "api-key"}]}
    assert all("secrets" not in rule["resources"] for rule in runner.role(BODY)["rules"])


def test_the_runners_rights_are_all_by_name():
    for rule in runner.role(BODY)["rules"]:
        assert rule["resourceNames"]
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"create", "delete", "deletecollection"} & set(rule["verbs"])


@pytest.mark.parametrize("make", [model_pod, verifier_pod])
def test_a_pod_template_is_merged_once_and_ours_wins(make):
    pod = make(podTemplate={**TEMPLATE, "metadata": {"labels": {"team": "x", "kernelsearch.dev/owner-name": "evil"}}})
    (container,) = pod["spec"]["containers"]

    assert pod["metadata"]["labels"]["team"] == "x"
    assert pod["metadata"]["labels"]["kernelsearch.dev/owner-name"] == "demo"
    assert pod["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert [v["name"] for v in pod["spec"]["volumes"]].count("data") == 1
    assert [m["mountPath"] for m in container["volumeMounts"]].count("/data") == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"spec": {"hostNetwork": True}}, "p.spec.hostNetwork"),
        ({"spec": {"serviceAccountName": "admin"}}, "p.spec.serviceAccountName"),
        ({"spec": {"securityContext": {}}}, "p.spec.securityContext"),
        ({"spec": {"initContainers": []}}, "p.spec.initContainers"),
        ({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}, "p.spec.volumes[0].hostPath"),
        ({"spec": {"volumes": [{"name": "x", "secret": {}}]}}, "p.spec.volumes[0].secret"),
        ({"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}, "take another"),
        ({"spec": {"containers": [{}, {}]}}, "write one"),
        ({"spec": {"containers": [{"securityContext": {"privileged": True}}]}}, "containers[0].securityContext"),
        ({"spec": {"containers": [{"command": ["sh"]}]}}, "containers[0].command"),
        ({"metadata": {"labels": {"app.kubernetes.io/component": "runner"}}}, "belongs to the operator"),
        ({"metadata": {"annotations": {"kernelsearch.dev/hash": "x"}}}, "belongs to the operator"),
        ({"metadata": {"ownerReferences": []}}, "p.metadata.ownerReferences"),
        ({"kind": "Pod"}, "p.kind"),
    ],
)
def test_what_could_weaken_a_pod_is_refused_by_its_path(given, said):
    assert said in "; ".join(template.faults(given, "p"))


def test_what_is_allowed_is_not_refused():
    assert list(template.faults(TEMPLATE, "p")) == []


def test_a_verifier_may_reach_nobody():
    owner, _ = pool()

    assert network.verifier(owner, SETTINGS.policy.network_policy)["spec"]["egress"] == []


def test_a_runner_stands_where_the_installation_puts_it():
    placed = {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "p"}
    defaults = RunnerDefaults(**placed)
    policy = SETTINGS.policy.model_copy(update={"runner": defaults})
    settings = SETTINGS.model_copy(update={"policy": policy})

    spec = runner.pod(BODY, read(BODY), settings, "http://model/v1", "pool.ns.svc:8000", 0)["spec"]

    assert {name: spec[name] for name in placed} == placed
    assert "affinity" not in spec


def test_sugar_becomes_an_object_of_the_searchs_name():
    body = search(verifiers={"serve": {"device": "cpu", "replicas": 3}})

    made = owned.verifier_pool(body, read(body))

    assert made["kind"] == "VerifierPool"
    assert made["metadata"]["name"] == "demo"
    assert made["spec"]["replicas"] == 3
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u1"


def test_weights_that_cannot_fit_are_refused_in_a_sentence():
    presets = {"r1": {"image": "vllm", "gpu": {"product": "NVIDIA-H100-80GB-HBM3", "count": 8}, "memoryGB": 805}}
    settings = SETTINGS.model_copy(update={"presets": presets})
    _, asked = server(preset="r1")

    (told,) = plan_model.faults(asked, settings)

    assert "8 x NVIDIA-H100-80GB-HBM3 hold 640 GB and the weights need 805 GB" in told


def test_fields_go_over_the_preset():
    _, asked = server(args=["--other"], port=9000)

    serving = model_server.Serving.resolve(asked, SETTINGS.presets["replay"], "own:1")

    assert serving == model_server.Serving("custom", "own:1", (), ("--other",), 9000)
