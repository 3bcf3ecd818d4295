"""The operator's process against a real API server, controllers and scheduler; no node, so this test is the kubelet."""

import asyncio
import json
import time
import urllib.request
from dataclasses import replace

import pytest
import yaml

from kernelsearch.controller import background, cluster
from watching import complete, condition

# On a cluster with nodes, pods would run for real, and a second operator may be there.
pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(180), pytest.mark.usefixtures("operator")]


@pytest.fixture
def quickstart(root):
    return yaml.safe_load((root / "examples/quickstart.yaml").read_text())


@pytest.fixture
def elsewhere(namespace):
    """A second namespace."""
    other = replace(namespace, name=f"{namespace.name}-other")
    namespace.cluster.kubectl("create", "namespace", other.name)
    yield other
    namespace.cluster.kubectl("delete", "namespace", other.name, "--wait=false")


def eventually(look, seconds=20.0):
    """What `look` gives, as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found


def when(namespace, holds, seconds=20.0, name="quickstart"):
    """The search, as soon as it holds."""
    last = {}

    def look():
        nonlocal last
        last = namespace.get("ksearch", name)
        return last if holds(last) else None

    try:
        return eventually(look, seconds)
    except AssertionError as error:
        raise AssertionError(json.dumps(last.get("status"), indent=1)) from error


def names(namespace, *kinds):
    return sorted(name for kind in kinds for name in namespace.kubectl("get", kind, "-o", "name").split())


def exists(namespace, kind, name):
    return bool(namespace.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").strip())


def be_kubelet(namespace, *, ready=True):
    """Every pod of the namespace runs, and is ready or not."""
    pods = json.loads(namespace.kubectl("get", "pods", "-o", "json"))["items"]
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    for pod in pods:
        namespace.kubectl(
            *("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge"),
            *("-p", json.dumps({"status": status})),
        )
    return len(pods)


def run(namespace, manifest):
    """Apply it, and let all its pods become ready."""
    namespace.apply(manifest)
    eventually(lambda: len(names(namespace, "pods")) == 3)
    be_kubelet(namespace)
    return when(namespace, lambda found: found.get("status", {}).get("phase") == "Running")


def publish(namespace, **facts):
    """As the runner would."""
    patch = json.dumps({"status": facts})
    namespace.kubectl("patch", "ksearch", "quickstart", "--subresource=status", "--type=merge", "-p", patch)


def change(namespace, **spec):
    namespace.kubectl("patch", "ksearch", "quickstart", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_search_gets_its_children_its_clock_and_its_end(namespace, quickstart):
    found = run(namespace, quickstart)

    assert condition(found, "Accepted")["status"] == "True"
    assert "deadlineTime" in found["status"]
    assert names(namespace, "modelservers", "verifierpools", "roles") == [
        "modelserver.kernelsearch.dev/quickstart",
        "role.rbac.authorization.k8s.io/quickstart-runner",
        "verifierpool.kernelsearch.dev/quickstart",
    ]

    publish(namespace, attempts={"correct": 1}, outcome={"reason": "TargetReached", "message": "fast"})
    ended = when(namespace, complete)

    assert ended["status"]["phase"] == "Succeeded"
    assert condition(ended, "Complete")["reason"] == "TargetReached"
    # Kubernetes' garbage collector learns of new kinds twice a minute only; after that this takes a second.
    eventually(lambda: names(namespace, "modelservers", "verifierpools", "roles", "deployments") == [], 60)
    assert exists(namespace, "configmap", "quickstart-best")
    eventually(lambda: not namespace.get("ksearch", "quickstart")["metadata"].get("finalizers"))


def test_the_deadline_is_kept_without_the_runners_word(namespace, quickstart):
    quickstart["spec"]["budget"] = {"deadlineSeconds": 3, "gracePeriodSeconds": 0}
    started = run(namespace, quickstart)

    ended = when(namespace, complete, 25)

    assert condition(ended, "Complete")["reason"] == "NoCorrectKernel"
    assert ended["status"]["phase"] == "Failed"
    late = _time(ended["status"]["completionTime"]) - _time(started["status"]["deadlineTime"])
    assert 5 <= late <= 10  # five seconds for the runner's own word


def test_suspend_releases_everything_and_resume_goes_on(namespace, quickstart):
    run(namespace, quickstart)

    change(namespace, suspend=True)
    suspended = when(namespace, lambda found: found["status"]["phase"] == "Suspended")
    eventually(lambda: names(namespace, "modelservers", "verifierpools", "roles") == [])
    change(namespace, suspend=False)
    when(namespace, lambda found: found["status"]["phase"] == "Starting")

    assert "deadlineTime" not in suspended["status"]
    assert suspended["status"]["usedSeconds"] >= 0
    eventually(lambda: exists(namespace, "modelserver", "quickstart"))


def test_stop_ends_it_and_keeps_the_results(namespace, quickstart):
    run(namespace, quickstart)
    publish(namespace, attempts={"correct": 2})

    change(namespace, stop=True)
    ended = when(namespace, complete, 40)

    assert condition(ended, "Complete")["reason"] == "Cancelled"
    assert ended["status"]["phase"] == "Succeeded"


def test_start_up_that_never_ends_is_ended(namespace, quickstart):
    quickstart["spec"]["budget"] = {"startupDeadlineSeconds": 3}
    namespace.apply(quickstart)

    ended = when(namespace, complete)

    assert condition(ended, "Complete")["reason"] == "StartupDeadlineExceeded"
    assert "no nodes available" in condition(ended, "Complete")["message"]


@pytest.mark.parametrize("kind", ["service", "configmap", "role", "pod", "modelserver", "networkpolicy"])
def test_a_child_deleted_by_hand_comes_back(namespace, quickstart, kind):
    run(namespace, quickstart)
    name = {"service": "quickstart-verifier", "configmap": "quickstart-best", "modelserver": "quickstart"}.get(
        kind, "quickstart-runner"
    )
    before = namespace.get(kind, name)["metadata"]["uid"]

    namespace.kubectl("delete", kind, name, "--grace-period=0", "--force")

    def another():
        text = namespace.kubectl("get", kind, name, "--ignore-not-found", "-o", "json")
        return text.strip() and json.loads(text)["metadata"]["uid"] != before

    eventually(another)


def test_a_deleted_search_is_gone_with_all_that_it_had(namespace, quickstart):
    run(namespace, quickstart)

    namespace.kubectl("delete", "ksearch", "quickstart", "--timeout=30s")

    kinds = ("modelservers", "verifierpools", "roles", "networkpolicies", "deployments", "services", "ksearch")
    eventually(lambda: names(namespace, *kinds) == [], 60)
    eventually(lambda: names(namespace, "configmaps") == ["configmap/kube-root-ca.crt"])


def test_a_search_made_anew_under_the_same_name_adopts_nothing(namespace, quickstart):
    run(namespace, quickstart)
    old = namespace.get("configmap", "quickstart-checkpoint")
    # What garbage collection would remove a moment later: as if it had not come to it yet.
    namespace.kubectl("delete", "ksearch", "quickstart", "--cascade=orphan", "--timeout=30s")

    namespace.apply(quickstart)
    search = when(namespace, lambda found: condition(found, "Accepted").get("status") == "True")

    def fresh():
        text = namespace.kubectl("get", "configmap", "quickstart-checkpoint", "--ignore-not-found", "-o", "json")
        return text.strip() and json.loads(text)["metadata"]["uid"] != old["metadata"]["uid"]

    eventually(fresh)
    noted = namespace.get("configmap", "quickstart-checkpoint")["metadata"]["annotations"]
    assert noted["kernelsearch.dev/search-uid"] == search["metadata"]["uid"]


def test_an_operator_that_was_killed_goes_on(operator, namespace, quickstart):
    quickstart["spec"]["budget"] = {"deadlineSeconds": 600}
    before = run(namespace, quickstart)

    operator.kill()
    namespace.kubectl("delete", "service", "quickstart-verifier")
    operator.start()

    eventually(lambda: exists(namespace, "service", "quickstart-verifier"), 30)
    after = namespace.get("ksearch", "quickstart")
    assert after["status"]["deadlineTime"] == before["status"]["deadlineTime"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"model": {"name": "x", "serve": {"preset": "unheard-of"}}}, "it has replay-quickstart"),
        ({"queueName": "fast"}, "spec.queueName"),
        ({"problem": {"configMapRef": {"name": "absent", "key": "x.py"}}}, "no ConfigMap absent"),
    ],
)
def test_what_the_schema_admits_and_nobody_can_serve_is_told(namespace, quickstart, spec, said):
    quickstart["spec"].update(spec)
    namespace.apply(quickstart)

    found = when(namespace, lambda found: condition(found, "Accepted").get("status") == "False")

    assert said in condition(found, "Accepted")["message"]
    assert names(namespace, "pods") == []


def model_server(**spec):
    return {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "shared"},
        "spec": {"model": "r1", "preset": "replay-quickstart", **spec},
    }


def label(namespace, **labels):
    """Another pod template of the ModelServer, seen by the operator."""
    patch = json.dumps([{"op": "add", "path": "/spec/podTemplate", "value": {"metadata": {"labels": labels}}}])
    namespace.kubectl("patch", "kmodel", "shared", "--type=json", "-p", patch)
    wanted = namespace.get("kmodel", "shared")["metadata"]["generation"]
    eventually(lambda: namespace.get("kmodel", "shared")["status"]["observedGeneration"] == wanted)
    return condition(namespace.get("kmodel", "shared"), "UpdatePending")


def test_a_model_in_use_keeps_its_pods_until_nobody_uses_it(namespace, quickstart):
    quickstart["spec"]["model"] = {"name": "r1", "serverRef": {"name": "shared"}}
    namespace.apply(model_server(idleTTLSeconds=600))
    run(namespace, quickstart)
    eventually(lambda: namespace.get("kmodel", "shared")["status"].get("users") == 1)
    before, pods, owned = template(namespace), names(namespace, "pods"), owned_fields(namespace)

    waiting = label(namespace, team="x")
    kept = template(namespace)
    again = label(namespace)

    assert waiting["reason"] == "InUse"
    assert not again
    assert kept == template(namespace) == before
    assert owned_fields(namespace) == owned  # what the API server fills in is its own again
    assert names(namespace, "pods") == pods

    assert label(namespace, team="x")["reason"] == "InUse"
    change(namespace, suspend=True)
    eventually(lambda: template(namespace)["metadata"]["labels"].get("team") == "x")
    eventually(lambda: not condition(namespace.get("kmodel", "shared"), "UpdatePending"))


def template(namespace):
    return namespace.get("deployment", "shared-model")["spec"]["template"]


def owned_fields(namespace):
    """Of the Deployment, by the operator."""
    text = namespace.kubectl("get", "deployment", "shared-model", "-o", "json", "--show-managed-fields")
    (entry,) = [
        each for each in json.loads(text)["metadata"]["managedFields"] if each["manager"] == "kernelsearch-operator"
    ]
    return entry["fieldsV1"]


def test_a_quota_that_forbids_a_models_pods_is_told(namespace):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    namespace.apply(quota)
    eventually(lambda: namespace.get("resourcequota", "none").get("status", {}).get("hard"))

    namespace.apply(model_server())

    def told():
        ready = condition(namespace.get("kmodel", "shared"), "Ready")
        return "exceeded quota" in ready.get("message", "") and ready["reason"] == "Starting"

    eventually(told)


def test_an_object_that_another_controller_manages_is_left_alone(namespace, quickstart):
    quickstart["spec"]["managedBy"] = "example.com/other"
    namespace.apply(quickstart)
    time.sleep(2)

    assert not namespace.get("ksearch", "quickstart").get("status")


def test_a_finished_search_goes_when_its_time_to_live_ends(namespace, quickstart):
    quickstart["spec"]["ttlSecondsAfterFinished"] = 0
    run(namespace, quickstart)
    publish(namespace, outcome={"reason": "NoCorrectKernel", "message": "none"})

    eventually(lambda: not exists(namespace, "ksearch", "quickstart"), 60)


def test_an_operator_of_one_namespace_serves_it_and_no_other(namespaced, namespace, elsewhere, quickstart, monkeypatch):
    elsewhere.apply(quickstart)
    run(namespace, quickstart)
    namespace.kubectl("delete", "service", "quickstart-verifier")
    eventually(lambda: exists(namespace, "service", "quickstart-verifier"))

    publish(namespace, attempts={"correct": 1}, outcome={"reason": "TargetReached", "message": "fast"})
    ended = when(namespace, complete)

    assert ended["status"]["phase"] == "Succeeded"
    assert not elsewhere.get("ksearch", "quickstart").get("status")
    monkeypatch.setenv("KUBECONFIG", namespaced.environment["KUBECONFIG"])
    assert len(asyncio.run(_seen_by_the_check(namespace.name))) > 1  # by a Role, and not refused


async def _seen_by_the_check(namespace):
    """What the check of watches would find, minutes later."""
    async with cluster.connect() as server:
        asked = [await server.versions(kind, namespace, selector) for kind, selector in background.WATCHED.items()]
    return [uid for versions in asked for uid in versions]


def test_metrics_and_health_are_served(operator, namespace, quickstart):
    run(namespace, quickstart)
    port = operator.environment["KERNELSEARCH_PORT"]

    def read(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    assert read("/healthz") == "ok\n"
    wanted = f'kernelsearch_searches{{namespace="{namespace.name}",phase="Running"}} 1.0'
    eventually(lambda: wanted in read("/metrics"))


def _time(text):
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
