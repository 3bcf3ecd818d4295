"""What a search's pods may do, and what may happen to it, while it runs. One search serves the whole file."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from steady import script, search, twin

from watching import attempts, best, complete, condition, running, until

pytestmark = pytest.mark.timeout(900)

GROUP = "/apis/kernelsearch.dev/v1alpha1"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
DRY = "?dryRun=All"
ONE = "fieldSelector=metadata.name%3Dsteady"


def calls(namespace: str) -> Iterator[tuple[bool, str, str, dict[str, Any] | None]]:
    """Whether it is allowed, method, path, body. A write is dry: authorised for real, and nothing comes of it."""
    core, ours = f"/api/v1/namespaces/{namespace}", f"{GROUP}/namespaces/{namespace}"
    searches, maps = f"{ours}/kernelsearches", f"{core}/configmaps"
    rights = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "steady-checkpoint"}}
    anew = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "x"}, "spec": {}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": []}}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    yield True, "GET", f"{searches}/steady", None
    yield True, "GET", f"{searches}?{ONE}", None
    yield True, "GET", f"{searches}?watch=1&timeoutSeconds=1&{ONE}", None
    yield True, "PATCH", f"{searches}/steady/status{DRY}", {"status": {}}
    yield True, "GET", f"{maps}/steady-checkpoint", None
    yield True, "GET", f"{maps}/steady-best", None
    yield True, "PUT", f"{maps}/steady-checkpoint{DRY}", named
    yield True, "PATCH", f"{maps}/steady-best{DRY}", {"data": {}}
    yield False, "GET", f"{searches}/other", None
    yield False, "GET", searches, None
    yield False, "GET", f"{GROUP}/kernelsearches", None
    yield False, "POST", f"{searches}{DRY}", anew
    yield False, "PATCH", f"{searches}/steady{DRY}", {"spec": {"stop": True}}
    yield False, "PUT", f"{searches}/steady{DRY}", anew
    yield False, "DELETE", f"{searches}/steady{DRY}", None
    yield False, "PATCH", f"{searches}/other/status{DRY}", {"status": {}}
    yield False, "GET", f"{maps}/steady", None
    yield False, "GET", maps, None
    yield False, "POST", f"{maps}{DRY}", named
    yield False, "DELETE", f"{maps}/steady-best{DRY}", None
    yield False, "GET", f"{core}/secrets/any", None
    yield False, "GET", f"{core}/secrets", None
    yield False, "GET", f"{core}/pods/steady-runner", None
    yield False, "GET", f"{core}/pods/steady-runner/log", None
    yield False, "POST", f"{core}/pods{DRY}", pod
    yield False, "POST", f"{core}/pods/steady-runner/exec?command=id", None
    yield False, "POST", f"{core}/serviceaccounts/steady-runner/token{DRY}", asked
    yield False, "GET", f"{ours}/modelservers/steady", None
    yield False, "PATCH", f"{rights}/roles/steady-runner{DRY}", {"rules": []}
    yield False, "GET", "/api/v1/nodes", None
    yield False, "GET", "/api/v1/namespaces/kube-system/configmaps", None


PROBE = """
import os, re, socket, sys
model, patience = sys.argv[1], float(sys.argv[2])
api = os.environ["KUBERNETES_SERVICE_HOST"]
dns = re.search(r"nameserver (\\S+)", open("/etc/resolv.conf").read())[1]
labels = (b"kubernetes", b"default", b"svc", b"cluster", b"local", b"")
question = b"\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + b"".join(bytes([len(l)]) + l for l in labels) + b"\\0\\1\\0\\1"

def connect(host, port):
    socket.create_connection((host, port), timeout=patience).close()

def resolve():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(patience)
        asking.sendto(question, (dns, 53))
        asking.recv(512)

tries = {
    "api": lambda: connect(api, 443),
    "dns by tcp": lambda: connect(dns, 53),
    "dns by udp": resolve,
    "model": lambda: connect(model, 8000),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name, "reached")
    except OSError:
        print(name, "refused")
"""
TRIED = ("api", "dns by tcp", "dns by udp", "model")


@pytest.fixture
def place(shared, root):
    """Where it runs, whatever another test did to it."""
    shared.apply(script(), search(root))
    shared.wait("steady", running)
    return shared


def inside(place, component, *command):
    (pod,) = place.pods(component)
    return place.kubectl("exec", pod["metadata"]["name"], "--", *command, check=False)


def test_the_runners_token_opens_its_own_search_only(place):
    token = place.kubectl("exec", "steady-runner", "--", "cat", TOKEN)
    wanted = {(method, path): allowed for allowed, method, path, _ in calls(place.name)}

    observed = {
        (method, path): place.cluster.answer_to(token, method, path, body)
        for _, method, path, body in calls(place.name)
    }

    assert {call: observed[call] for call, allowed in wanted.items() if allowed and observed[call] != 200} == {}
    assert {call: observed[call] for call, allowed in wanted.items() if not allowed and observed[call] != 403} == {}


def test_a_verifier_reaches_nobody_and_has_no_token(place):
    (model,) = place.pods("model")
    address = model["status"]["podIP"]

    told = inside(place, "verifier", "python3", "-c", PROBE, address, "2")
    tokens = inside(place, "verifier", "ls", "/var/run/secrets/kubernetes.io/serviceaccount")

    assert told.split("\n")[:4] == [f"{each} refused" for each in TRIED]
    assert "No such file" in tokens
    # The runner reaches what the verifier does not, so it is the policy and not the network that refuses.
    reached = inside(place, "runner", "python3", "-c", PROBE, address, "30")
    assert reached.split("\n")[:4] == [f"{each} reached" for each in TRIED]


def test_a_verifier_admits_nobody_without_a_token(place):
    (verifier,) = place.pods("verifier")
    url = f"http://{verifier['status']['podIP']}:8000/v1/capabilities"
    ask = "import urllib.request,sys\ntry: urllib.request.urlopen(sys.argv[1])\nexcept Exception as e: print(e)"

    assert "401" in inside(place, "runner", "python3", "-c", ask, url)


def test_a_suspended_search_gives_its_pods_back_and_goes_on_where_it_stood(place):
    place.wait("steady", best)
    place.change("steady", suspend=True)
    place.wait("steady", lambda found: condition(found, "Suspended").get("status") == "True")
    until(lambda: not place.pods())
    paused = place.get("ksearch", "steady")
    assert "deadlineTime" not in paused["status"]
    assert paused["status"]["best"]["source"] == place.get("configmap", "steady-best")["data"]["kernel.py"]

    place.change("steady", suspend=False)
    resumed = place.wait("steady", lambda found: running(found) and attempts(found) > attempts(paused))

    assert resumed["status"]["sequence"] > paused["status"]["sequence"]
    assert resumed["status"]["usedSeconds"] == paused["status"]["usedSeconds"] > 0, "the clock ran while it stood"
    assert best(resumed)


def test_of_two_runners_at_once_one_ends_and_nothing_is_counted_twice(place):
    before = place.wait("steady", running)
    place.apply(twin(place.get("pod", "steady-runner")))
    seen = [before]

    def fenced():
        """Whoever loses ends by itself: the twin, or first the runner, whose next one then takes over from the twin."""
        seen.append(place.get("ksearch", "steady"))
        return place.get("pod", "twin")["status"]["phase"] in {"Succeeded", "Failed"}

    until(fenced)
    told = place.kubectl("logs", "twin")
    place.kubectl("delete", "pod", "twin", "--wait=false")

    assert "this runner is not needed any more" in told
    assert "taken over" in told or "took over" in told
    seen.append(place.wait("steady", lambda found: attempts(found) >= attempts(seen[-1]) + 2))
    totals = [attempts(each) for each in seen]
    assert totals == sorted(totals), "a counter went back"
    status = seen[-1]["status"]
    counted = {k: v for k, v in status["attempts"].items() if k not in {"total", "inFlight", "infrastructure"}}
    assert sum(counted.values()) == status["attempts"]["total"]
    ids = [each["id"] for each in status["recentAttempts"]]
    assert len(ids) == len(set(ids)), "an attempt's number came twice"


def test_a_search_made_anew_under_its_name_begins_anew_and_deleted_leaves_nothing(place, root):
    old = place.wait("steady", lambda found: attempts(found) >= 3)
    place.kubectl("delete", "ksearch", "steady", "--wait=false")
    until(lambda: "kernelsearch.kernelsearch.dev/steady" not in place.everything())
    place.apply(search(root))  # while pods of the old one may still end
    new = place.wait("steady", attempts)
    uid = new["metadata"]["uid"]
    assert uid != old["metadata"]["uid"]
    assert min(each["id"] for each in new["status"]["recentAttempts"]) <= 2, "it does not begin with its first attempts"
    checkpoint = place.get("configmap", "steady-checkpoint")
    assert checkpoint["metadata"]["annotations"]["kernelsearch.dev/search-uid"] == uid
    assert not complete(new)

    start = time.monotonic()
    place.kubectl("delete", "ksearch", "steady")
    while left := place.everything() - {"configmap/steady", "persistentvolumeclaim/site"}:
        assert time.monotonic() - start < 30, left
        time.sleep(0.5)
