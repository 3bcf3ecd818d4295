"""What ModelServers and VerifierPools should look like: their users, their age, their floors, what is told of them."""

import json

import pytest

from cluster_objects import SETTINGS, at, stamp
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.verifier_pool import VerifierPool
from kernelsearch.controller import settings
from kernelsearch.controller.builders import template
from kernelsearch.controller.manifest import key
from kernelsearch.controller.plan import conditions, model_server, pods, shared, verifier_pool


def pod(**status):
    return {"metadata": {"name": "p"}, "status": status}


def runs(restarts=0):
    return pod(containerStatuses=[{"restartCount": restarts, "state": {"running": {}}}])


def ending():
    return {**runs(), "metadata": {"name": "p", "deletionTimestamp": stamp(0)}}


READY = pod(conditions=[{"type": "Ready", "status": "True"}])
WITH_WEIGHTS = {
    "r1": {"engine": "vllm", "image": "vllm", "command": ["vllm", "serve"], "args": ["/models", "--port=8000"]}
}


def body(kind="ModelServer", status=None, generation=1, **spec):
    spec = {"model": "r1", "preset": "replay", **spec} if kind == "ModelServer" else {"device": "cpu", **spec}
    metadata = {"name": "demo", "namespace": "ns", "uid": "u1", "generation": generation}
    return {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
        "status": status or {},
    }


def read(of):
    whole = json.dumps({**of, "metadata": {"name": "demo"}, "status": None})
    return (ModelServer if of["kind"] == "ModelServer" else VerifierPool).model_validate_json(whole)


def seen(of, seconds=0.0, *, users=1, pods=(READY,), children=()):
    return shared.Seen(of, {key(each): each for each in children}, pods, users, at(seconds))


def planned(of, seconds=0.0, *, with_=SETTINGS, **world):
    plan = model_server.plan if of["kind"] == "ModelServer" else verifier_pool.plan
    return plan(seen(of, seconds, **world), read(of), with_)


def deployment(plan):
    return next(each for each in plan.children if each["kind"] == "Deployment")


def container(made):
    return made["spec"]["template"]["spec"]["containers"][0]


def ready(plan):
    return conditions.find(plan.status, "Ready")


def lives(passes, **spec):
    """Replicas of each pass, by (seconds, users) or (seconds, users, generation); each sees the status of the last."""
    status, found = {}, []
    for seconds, users, *generation in passes:
        plan = planned(body(status=status, generation=(generation or [1])[0], **spec), seconds, users=users)
        status = plan.status
        found.append(deployment(plan)["spec"]["replicas"])
    return found


# ---- age ----


def test_what_is_too_old_stays_away_while_the_same_searches_use_it():
    assert lives([(0, 1), (59, 1), (60, 1), (61, 1), (300, 1)], maxLifetimeSeconds=60) == [1, 1, 0, 0, 0]


def test_the_first_search_after_the_old_ones_begins_another_life():
    assert lives([(0, 1), (60, 1), (70, 0), (80, 0), (90, 1), (149, 1), (150, 1)], maxLifetimeSeconds=60) == [
        *(1, 0, 0, 0),
        *(1, 1, 0),
    ]


def test_another_spec_begins_another_life():
    assert lives([(0, 1), (60, 1), (70, 1, 2), (71, 1, 2)], maxLifetimeSeconds=60) == [1, 0, 1, 1]


def test_a_change_of_the_spec_makes_nothing_younger():
    assert lives([(0, 1), (59, 1, 2), (60, 1, 2)], maxLifetimeSeconds=60) == [1, 1, 0]


def test_what_is_too_old_says_so_and_what_to_do():
    young = planned(body(maxLifetimeSeconds=60)).status

    old = planned(body(status=young, maxLifetimeSeconds=60), 60)

    assert ready(old)["reason"] == "LifetimeOver"
    assert "starts again for the first search" in ready(old)["message"]


def test_the_end_of_a_life_is_not_slept_through():
    young = planned(body(maxLifetimeSeconds=60)).status

    assert planned(body(status=young, maxLifetimeSeconds=60), 55).requeue_seconds == 5


def test_a_spec_that_cannot_be_served_makes_nothing_younger():
    young = planned(body()).status

    wrong = planned(body(status=young, replicas=64), 30, with_=_floor(max_replicas=2))

    assert wrong.status["activeSince"] == stamp(0)


def test_idle_pods_go_after_their_time():
    assert lives([(0, 1), (10, 0), (39, 0), (40, 0), (50, 1)], idleTTLSeconds=30) == [1, 1, 1, 0, 1]


# ---- updates ----


def observed(of, with_=SETTINGS):
    """The Deployment as the API server shows it: with its defaults."""
    found = deployment(planned(of, with_=with_))
    container(found)["terminationMessagePath"] = "/dev/termination-log"
    found["spec"]["template"]["metadata"]["creationTimestamp"] = None
    return found


def _model(**values):
    model = SETTINGS.policy.model.model_copy(update=values)
    return SETTINGS.model_copy(update={"policy": SETTINGS.policy.model_copy(update={"model": model})})


PROXY = _model(env=({"name": "HTTPS_PROXY", "value": "http://proxy:3128"},))
CHANGES = [
    ({}, PROXY),
    ({"image": "other:2"}, SETTINGS),
    ({"gpu": {"count": 2}}, SETTINGS),
    ({"port": 9000}, SETTINGS),
    ({"podTemplate": {"metadata": {"labels": {"team": "x"}}}}, SETTINGS),
]


@pytest.mark.parametrize(("spec", "with_"), CHANGES)
def test_pods_in_use_stay_whatever_would_change_them(spec, with_):
    there = observed(body())

    plan = planned(body(**spec), with_=with_, children=[there])

    runs = there["spec"]["template"]
    kept = {**runs, "metadata": {"labels": runs["metadata"]["labels"], "annotations": {}}}
    assert deployment(plan)["spec"]["template"] == kept
    assert conditions.find(plan.status, "UpdatePending")["reason"] == "InUse"
    assert plan.status["endpoint"].endswith(":8000/v1")
    service = next(each for each in plan.children if each["kind"] == "Service")
    assert service["spec"]["ports"][0]["port"] == 8000


@pytest.mark.parametrize(("spec", "with_"), CHANGES)
@pytest.mark.parametrize(
    "world",
    [{"users": 0}, {"pods": ()}, {"pods": [pod(phase="Pending")]}, {"pods": [runs(restarts=3)]}, {"pods": [ending()]}],
    ids=["unused", "no pods", "not scheduled", "crashing", "deleted by hand"],
)
def test_pods_that_nobody_loses_are_made_anew(spec, with_, world):
    plan = planned(body(**spec), with_=with_, children=[observed(body())], **world)

    assert deployment(plan) == deployment(planned(body(**spec), with_=with_))
    assert not conditions.find(plan.status, "UpdatePending")


def test_pods_that_load_weights_are_in_use():
    plan = planned(body(), with_=PROXY, children=[observed(body())], pods=[runs()])

    assert conditions.holds(plan.status, "UpdatePending")


def test_a_change_that_is_taken_back_leaves_nothing_pending():
    there = observed(body())
    waiting = planned(body(), with_=PROXY, children=[there])

    plan = planned(body(), children=[deployment(waiting)])

    assert deployment(plan) == deployment(planned(body()))
    assert not conditions.find(plan.status, "UpdatePending")


def test_what_waits_for_its_update_goes_on_waiting():
    once = planned(body(), with_=PROXY, children=[observed(body())])

    twice = planned(body(), with_=PROXY, children=[deployment(once)])

    assert deployment(twice) == deployment(once)
    assert conditions.holds(twice.status, "UpdatePending")


def test_more_replicas_come_at_once():
    plan = planned(body(replicas=2), children=[observed(body())])

    assert deployment(plan)["spec"]["replicas"] == 2
    assert not conditions.find(plan.status, "UpdatePending")


# ---- floors ----


def _floor(**values):
    return SETTINGS.model_copy(update={"policy": SETTINGS.policy.model_copy(update=values)})


def faults(of, with_=SETTINGS):
    module = model_server if of["kind"] == "ModelServer" else verifier_pool
    return "; ".join(module.faults(read(of), with_))


@pytest.mark.parametrize(
    ("field", "value"), [("image", "x"), ("command", ["sh", "-c", "x"]), ("args", []), ("engine", "custom")]
)
def test_presets_only_means_nothing_of_an_engines_own(field, value):
    assert f"spec.{field}: this installation serves its presets" in faults(
        body(**{field: value}), _floor(allow_custom_engine=False)
    )


def test_a_preset_alone_is_allowed_where_presets_only_are():
    assert faults(body(gpu={"count": 2}), _floor(allow_custom_engine=False)) == ""


@pytest.mark.parametrize("kind", ["ModelServer", "VerifierPool"])
@pytest.mark.parametrize(
    ("prefix", "image", "allowed"),
    [
        ("ghcr.io/acme", "ghcr.io/acme/x:1", True),
        ("ghcr.io/acme/", "ghcr.io/acme/x:1", True),
        ("ghcr.io/acme/x", "ghcr.io/acme/x", True),
        ("ghcr.io/acme/x", "ghcr.io/acme/x:1", True),
        ("ghcr.io/acme/x", "ghcr.io/acme/x@sha256:0", True),
        ("ghcr.io/acme", "ghcr.io/acme-evil/x", False),
        ("registry.example.com", "registry.example.com.evil.org/x", False),
        ("ghcr.io/acme/x:1", "ghcr.io/acme/x:1.2", False),
        ("ghcr.io/acme", "evil.org/ghcr.io/acme", False),
    ],
)
def test_images_are_allowed_by_whole_parts_of_their_names(kind, prefix, image, allowed):
    assert (faults(body(kind, image=image), _floor(allowed_images=(prefix,))) == "") is allowed


@pytest.mark.parametrize(
    "gpu",
    [
        {"resourceName": "nvidia.com/mig-3g.40gb"},
        {"resourceName": "nvidia.com/gpu.shared"},
        {"product": "NVIDIA-H100-80GB-HBM3-SHARED"},
        {"product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"},
    ],
)
def test_parts_of_a_gpu_time_nothing(gpu):
    assert "name a whole one" in faults(body("VerifierPool", device="cuda", gpu=gpu))


def test_hosts_have_no_case():
    assert settings.Policy(allowed_endpoint_hosts=("*.Example.COM",)).allowed_endpoint_hosts == ("*.example.com",)


# ---- weights ----


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({}, True),
        ({"weights": {"pvc": "r1"}}, False),
        ({"args": ["deepseek-ai/DeepSeek-R1"]}, False),
        ({"image": "mine-with-weights:1"}, False),
        ({"podTemplate": {"spec": {"containers": [{"volumeMounts": [{"name": "w", "mountPath": "/models"}]}]}}}, False),
    ],
)
def test_a_preset_that_reads_weights_wants_to_know_where_they_are(spec, wrong):
    with_ = SETTINGS.model_copy(update={"presets": WITH_WEIGHTS})

    assert (
        "spec.weights.pvc: preset r1 reads its weights from /models" in faults(body(preset="r1", **spec), with_)
    ) is (wrong)


def test_weights_that_the_installation_mounts_are_enough():
    with_ = _model(extra_volume_mounts=({"name": "w", "mountPath": "/models"},)).model_copy(
        update={"presets": WITH_WEIGHTS}
    )

    assert faults(body(preset="r1"), with_) == ""


def test_downloads_have_the_room_that_the_installation_gives():
    volumes = deployment(planned(body(), with_=_model(scratch="1Ti")))["spec"]["template"]["spec"]["volumes"]

    assert {"name": "tmp", "emptyDir": {"sizeLimit": "1Ti"}} in volumes


@pytest.mark.parametrize(
    ("product", "each"),
    [
        ("NVIDIA-H200", 141),
        ("NVIDIA-H100-80GB-HBM3", 80),
        ("NVIDIA-H100-NVL", 94),
        ("NVIDIA-A100-SXM4-40GB", 40),
        ("NVIDIA-A100-SXM4-80GB", 80),
        ("NVIDIA-GH200-480GB", None),
        ("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_whole_words_of_its_name(product, each):
    preset = {"image": "vllm", "gpu": {"product": product, "count": 1}, "memoryGB": 1000}

    told = faults(body(preset="big"), SETTINGS.model_copy(update={"presets": {"big": preset}}))

    assert told == "" if each is None else f"hold {each} GB" in told


# ---- what is told ----


@pytest.mark.parametrize("kind", ["ModelServer", "VerifierPool"])
def test_a_quota_that_forbids_pods_is_told(kind):
    words = 'pods "demo" is forbidden: exceeded quota: gpus'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    there = {**deployment(planned(body(kind))), "status": {"conditions": [failure]}}

    assert ready(planned(body(kind), pods=(), children=[there]))["message"] == f"FailedCreate: {words}"


# ---- verifiers ----


def test_admitting_a_namespace_restarts_no_verifier():
    before, after = (planned(body("VerifierPool", allowedNamespaces=names)) for names in ([], ["team"]))

    assert deployment(before) == deployment(after)
    keys = next(each for each in after.children if each["kind"] == "ConfigMap")
    assert keys["data"]["namespaces"].split() == ["ns", "team"]


# ---- pod templates ----


def merged(kind="VerifierPool", **spec):
    """The verifier's pod on a GPU, or the model's."""
    more = {"device": "cuda", "gpu": {"count": 1, "product": "NVIDIA-H200"}} if kind == "VerifierPool" else {}
    of = body(kind, **more, podTemplate={"spec": spec})
    assert faults(of) == ""
    return deployment(planned(of))["spec"]["template"]["spec"]


@pytest.mark.parametrize("side", ["limits", "requests"])
def test_one_amount_moves_request_and_limit_and_nothing_else(side):
    pod = merged(containers=[{"resources": {side: {"memory": "64Gi"}}}])

    assert pod["containers"][0]["resources"] == {
        "limits": {"cpu": "4", "memory": "64Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "4", "memory": "64Gi"},
    }


def test_amounts_on_both_sides_are_taken_as_they_are():
    pod = merged(containers=[{"resources": {"limits": {"memory": "64Gi"}, "requests": {"memory": "32Gi", "cpu": "2"}}}])

    assert pod["containers"][0]["resources"] == {
        "limits": {"cpu": "2", "memory": "64Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "2", "memory": "32Gi"},
    }


def test_a_node_selector_joins_the_gpus():
    assert merged(nodeSelector={"pool": "gpu"})["nodeSelector"] == {
        "nvidia.com/gpu.product": "NVIDIA-H200",
        "pool": "gpu",
    }


def test_no_name_comes_twice():
    env = [{"name": "HOME", "value": "/cache"}, {"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    mounts = [{"name": "cache", "mountPath": "/cache"}, {"name": "cache", "mountPath": "/tmp"}]
    volumes = [{"name": "cache", "emptyDir": {}}]

    pod = merged("ModelServer", volumes=volumes, containers=[{"env": env, "volumeMounts": mounts}])

    (made,) = pod["containers"]
    assert made["env"] == [{"name": "HOME", "value": "/cache"}, {"name": "A", "value": "2"}]
    assert {each["mountPath"]: each["name"] for each in made["volumeMounts"]} == {"/tmp": "tmp", "/cache": "cache"}
    assert len(made["volumeMounts"]) == 2


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"limits": {"nvidia.com/gpu": "1"}}, "p.spec.containers[0].resources.limits: nvidia.com/gpu is not asked for"),
        ({"requests": {"nvidia.com/mig-1g.10gb": "1"}}, "write spec.gpu"),
        ({"claims": []}, "p.spec.containers[0].resources.claims: may not be set here"),
    ],
)
def test_gpus_are_asked_for_by_their_field(resources, said):
    assert said in "; ".join(template.faults({"spec": {"containers": [{"resources": resources}]}}, "p"))


def test_a_pod_that_ends_again_and_again_says_its_last_words():
    last = {"exitCode": 2, "reason": "Error", "message": "Usage: serve\n\nError: --device cuda is not available yet\n"}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
    crashed = pod(containerStatuses=[{"state": {"waiting": waiting}, "lastState": {"terminated": last}}])

    told = pods.read(crashed).trouble

    assert told == "CrashLoopBackOff: exit code 2: Error: --device cuda is not available yet"
