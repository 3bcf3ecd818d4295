"""Who may do what: the runner's token by itself, and what a verifier's pod can reach."""

import json
import subprocess

import pytest
from steady import script, search

from watching import condition

pytestmark = pytest.mark.timeout(400)

ALLOWED = {
    ("get", "kernelsearches.kernelsearch.dev", "steady"),
    ("list", "kernelsearches.kernelsearch.dev", "steady"),
    ("watch", "kernelsearches.kernelsearch.dev", "steady"),
    ("patch", "kernelsearches.kernelsearch.dev/status", "steady"),
    ("get", "configmaps", "steady-checkpoint"),
    ("update", "configmaps", "steady-checkpoint"),
    ("patch", "configmaps", "steady-best"),
}
FORBIDDEN = {
    ("get", "kernelsearches.kernelsearch.dev", "other"),
    ("list", "kernelsearches.kernelsearch.dev", ""),
    ("patch", "kernelsearches.kernelsearch.dev", "steady"),
    ("update", "kernelsearches.kernelsearch.dev", "steady"),
    ("delete", "kernelsearches.kernelsearch.dev", "steady"),
    ("patch", "kernelsearches.kernelsearch.dev/status", "other"),
    ("get", "configmaps", "steady"),
    ("create", "configmaps", ""),
    ("delete", "configmaps", "steady-best"),
    ("list", "configmaps", ""),
    ("get", "secrets", "any"),
    ("list", "secrets", ""),
    ("create", "pods", ""),
    ("get", "pods", "steady-runner"),
    ("create", "pods/exec", "steady-verifier"),
    ("get", "modelservers.kernelsearch.dev", "steady"),
    ("create", "serviceaccounts/token", "steady-runner"),
    ("escalate", "roles.rbac.authorization.k8s.io", "steady-runner"),
}
PROBE = """
import os, re, socket, sys
api = os.environ["KUBERNETES_SERVICE_HOST"]
dns = re.search(r"nameserver (\\S+)", open("/etc/resolv.conf").read())[1]
for name, host, port in (("api", api, 443), ("dns", dns, 53), ("model", sys.argv[1], 8000)):
    try:
        socket.create_connection((host, port), timeout=2).close()
        print(name, "reached")
    except OSError as error:
        print(name, "refused")
"""


@pytest.fixture
def started(place, root):
    place.apply(script(), search(root, budget={"deadlineSeconds": 300}))
    place.wait("steady", lambda found: found.get("status", {}).get("phase") == "Running", 90)
    return place


def test_the_runners_token_opens_its_own_search_only(started):
    account = f"system:serviceaccount:{started.name}:steady-runner"

    def may(verb, resource, name):
        target = f"{resource}/{name}" if name and "/" not in resource else resource
        more = ["--subresource", resource.split("/")[1]] if "/" in resource else []
        target = f"{resource.split('/')[0]}/{name}" if "/" in resource else target
        answer = started.kubectl("auth", "can-i", verb, target, *more, f"--as={account}", check=False)
        return answer.strip().splitlines()[0]

    observed = {each: may(*each) for each in ALLOWED | FORBIDDEN}

    assert {each for each, answer in observed.items() if answer == "yes"} == ALLOWED


def test_a_verifier_reaches_nobody_and_has_no_token(started):
    pods = json.loads(started.kubectl("get", "pods", "-o", "json"))["items"]
    by = {pod["metadata"]["labels"].get("app.kubernetes.io/component"): pod for pod in pods}
    verifier, model = by["verifier"], by["model"]

    def inside(pod, *command):
        return started.kubectl("exec", pod["metadata"]["name"], "--", *command, check=False)

    told = inside(verifier, "python3", "-c", PROBE, model["status"]["podIP"])
    tokens = inside(verifier, "ls", "/var/run/secrets/kubernetes.io/serviceaccount")

    assert told.split("\n")[:3] == ["api refused", "dns refused", "model refused"]
    assert "No such file" in tokens
    # The runner reaches what the verifier does not, so it is the policy and not the network that refuses.
    assert "api reached" in inside(by["runner"], "python3", "-c", PROBE, model["status"]["podIP"])


def test_a_verifier_admits_nobody_without_a_token(started):
    pods = json.loads(started.kubectl("get", "pods", "-o", "json"))["items"]
    verifier = next(p for p in pods if p["metadata"]["labels"].get("app.kubernetes.io/component") == "verifier")
    url = f"http://{verifier['status']['podIP']}:8000/v1/capabilities"
    ask = "import urllib.request,sys\ntry: urllib.request.urlopen(sys.argv[1])\nexcept Exception as e: print(e)"

    told = started.kubectl("exec", "steady-runner", "--", "python3", "-c", ask, url, check=False)

    assert "401" in told


@pytest.mark.needs("own_cluster")  # its GPUs are counted
def test_a_pool_that_asks_for_more_gpus_than_there_are_says_so(place):
    def pool(name, count):
        spec = {"device": "cuda", "gpu": {"count": count}, "replicas": 1}
        return {
            "apiVersion": "kernelsearch.dev/v1alpha1",
            "kind": "VerifierPool",
            "metadata": {"name": name},
            "spec": spec,
        }

    place.apply(pool("one", 1), pool("many", 16))

    def scheduled():
        pods = json.loads(place.kubectl("get", "pods", "-o", "json"))["items"]
        found = {}
        for pod in pods:
            conditions = pod["status"].get("conditions", ())
            name = pod["metadata"]["labels"]["kernelsearch.dev/owner-name"]
            found[name] = any(c["type"] == "PodScheduled" and c["status"] == "True" for c in conditions)
        return found

    _until(lambda: scheduled() == {"one": True, "many": False})
    _until(lambda: "Insufficient nvidia.com/gpu" in condition(place.get("kvpool", "many"), "Ready")["message"])


def _until(holds, seconds=60):
    import time

    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (KeyError, subprocess.SubprocessError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)
