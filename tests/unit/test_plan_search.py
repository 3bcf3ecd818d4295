"""What a KernelSearch should look like: each move of the state diagram, and the invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_objects import SETTINGS, ended, pod, read, search, seen, shared, stamp
from kernelsearch.controller.manifest import Key, key
from kernelsearch.controller.plan import clocks, conditions
from kernelsearch.controller.plan import search as plans

RUNNER = Key("Pod", "demo-runner")
KINDS = {"Pod", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "ModelServer", "VerifierPool"}


def plan(observed, settings=SETTINGS):
    return plans.plan(observed, read(observed.body), settings)


def told(found, kind):
    return conditions.find(found.status, kind)


def kinds(found):
    return {each["kind"] for each in found.children}


def running(**more):
    """The status of a search whose clock started at 0."""
    return {"startTime": stamp(0), "segmentStartTime": stamp(0), "deadlineTime": stamp(900), "usedSeconds": 0, **more}


def test_a_good_search_is_accepted_and_gets_its_children():
    found = plan(seen(search(), server=None, pool=None))

    assert told(found, "Accepted")["status"] == "True"
    assert found.status["startTime"] == found.status["startupSegmentStartTime"] == stamp(0)
    assert found.status["phase"] == "Starting"
    assert kinds(found) == KINDS | {"ConfigMap"}


def test_every_condition_is_there_from_the_first_pass():
    found = plan(seen(search()))

    assert [each["type"] for each in found.status["conditions"]] == [
        *("Accepted", "ModelReady", "VerifiersReady", "RunnerReady", "Progressing", "Solved", "Complete"),
        *("Suspended", "Degraded"),
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"model": {"name": "r1", "serve": {"preset": "other"}}},
            "no preset 'other' in this installation; it has replay",
        ),
        ({"queueName": "q"}, "spec.queueName"),
        (
            {"model": {"name": "r1", "serve": {"image": "x", "podTemplate": {"spec": {"hostNetwork": True}}}}},
            "spec.model.serve.podTemplate.spec.hostNetwork",
        ),
        (
            {"verifiers": {"serve": {"device": "cuda", "gpu": {"count": 1, "product": "NVIDIA-H100-SHARED"}}}},
            "spec.verifiers.serve.gpu.product",
        ),
        ({"archive": {"url": "s3://x"}}, "spec.archive"),
        (
            {"problem": {"kernelBench": {"level": 1, "id": 1, "source": {"url": "/data"}}}},
            "put the reference inline or into a ConfigMap",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_remedy(spec, said):
    found = plan(seen(search(**spec)))

    assert told(found, "Accepted")["reason"] == "InvalidSpec"
    assert said in told(found, "Accepted")["message"]
    assert found.children == ()
    assert "startTime" not in found.status


@pytest.mark.parametrize("field", ["apiKeySecretRef", "caConfigMapRef"])
def test_a_runner_that_waits_for_what_it_mounts_says_for_what(field):
    """The kubelet says it in events only, and the search would wait until its startup deadline."""
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    waiting = pod(ready=False, phase="Pending", containerStatuses=[creating])
    endpoint = {"url": "https://a.example/v1", field: {"name": "deepseek", "key": "api-key"}}
    accepted = search({"startTime": stamp(0)}, model={"name": "r1", "endpoint": endpoint})

    message = told(plan(seen(accepted, 100, waiting)), "RunnerReady")["message"]

    assert f"deepseek with key api-key (spec.model.endpoint.{field}) in this namespace" in message


def test_an_object_that_cannot_be_read_is_refused_before_its_start_only():
    found = plans.invalid(seen(search()), "spec.model: is 3")

    assert told(found, "Accepted")["reason"] == "InvalidSpec"
    assert "startTime" not in found.status


def test_a_started_search_that_cannot_be_read_loses_nothing():
    started = plan(seen(search(running()), 100, pod())).status

    found = plans.invalid(seen(search(started), 200, pod()), "spec.model: is 3")

    assert found.keep
    assert {**found.status, "conditions": 0} == {**started, "conditions": 0}
    assert found.status["conditions"][:-1] == started["conditions"][:-1]
    assert told(found, "Degraded")["status"] == "True"
    assert "spec.model: is 3" in told(found, "Degraded")["message"]


def test_the_end_of_a_search_that_cannot_be_read_is_not_taken_back():
    status = {"conditions": [{"type": "Complete", "status": "True"}], "startTime": stamp(0)}

    found = plans.invalid(seen(search(status), 100), "spec.model: is 3")

    assert (found.keep, found.finished, found.status) == (True, True, None)


def test_an_endpoint_elsewhere_is_refused_by_its_host():
    policy = SETTINGS.policy.model_copy(update={"allowed_endpoint_hosts": ("*.good.example",)})
    settings = SETTINGS.model_copy(update={"policy": policy})
    model = {"name": "r1", "endpoint": {"url": "https://evil.example/v1"}}

    found = plan(seen(search(model=model)), settings)
    allowed = {"name": "r1", "endpoint": {"url": "https://a.good.example/v1"}}

    assert "evil.example is not allowed here" in told(found, "Accepted")["message"]
    assert told(plan(seen(search(model=allowed)), settings), "Accepted")["status"] == "True"


def test_a_missing_config_map_is_waited_for():
    found = plan(seen(search(), missing_reference="create it"))

    assert told(found, "Accepted")["reason"] == "ProblemNotFound"
    assert found.requeue_seconds <= 10


def test_the_search_clock_starts_once_everything_is_ready():
    body = search({"startTime": stamp(0), "startupSegmentStartTime": stamp(0)})

    waiting = plan(seen(body, 5, pod(ready=False)))
    found = plan(seen(body, 5, pod()))

    assert waiting.status["phase"] == "Starting"
    assert "deadlineTime" not in waiting.status
    assert found.status["phase"] == "Running"
    assert found.status["segmentStartTime"] == stamp(5)
    assert found.status["deadlineTime"] == stamp(905)
    assert "startupSegmentStartTime" not in found.status


def test_what_breaks_while_it_runs_costs_search_time():
    found = plan(seen(search(running()), 100, pod(), server=shared("ModelServer", ready=False)))

    assert found.status["phase"] == "Running"
    assert found.status["deadlineTime"] == stamp(900)
    assert told(found, "ModelReady")["status"] == "False"


def test_a_changed_budget_moves_the_deadline():
    found = plan(seen(search(running(), budget={"deadlineSeconds": 300}), 100, pod()))

    assert found.status["deadlineTime"] == stamp(300)


def test_a_suspended_search_keeps_its_results_only():
    found = plan(seen(search(running(), suspend=True), 100, pod()))

    assert found.status["phase"] == "Suspended"
    assert found.status["usedSeconds"] == 100
    assert "deadlineTime" not in found.status
    assert kinds(found) == {"ConfigMap"}
    assert told(found, "Suspended")["status"] == "True"


def test_a_resumed_search_has_the_rest_of_its_time():
    starting = plan(seen(search({"startTime": stamp(0), "usedSeconds": 100}), 500, pod(ready=False)))
    found = plan(seen(search({"startTime": stamp(0), "usedSeconds": 100}), 500, pod()))

    assert starting.status["startupSegmentStartTime"] == stamp(500)
    assert found.status["deadlineTime"] == stamp(500 + 800)


@pytest.mark.parametrize(
    ("status", "phase"),
    [({"attempts": {"correct": 1}}, "Succeeded"), ({"best": {"attempt": 1}}, "Succeeded"), ({}, "Failed")],
)
@pytest.mark.parametrize("reason", ["DeadlineReached", "Cancelled", "ModelUnavailable"])
def test_a_correct_kernel_makes_a_success_whatever_ended_it(status, phase, reason):
    found = plan(seen(search(running(outcome={"reason": reason, "message": "m"}, **status)), 100, pod()))

    assert found.status["phase"] == phase
    assert told(found, "Complete")["reason"] == reason
    assert found.finished
    assert kinds(found) == {"ConfigMap"}


def test_the_operator_ends_a_search_whose_runner_is_silent():
    budget = {"deadlineSeconds": 900, "gracePeriodSeconds": 60}

    before = plan(seen(search(running(), budget=budget), 964, pod()))
    after = plan(seen(search(running(), budget=budget), 965, pod()))

    assert not before.finished
    assert before.requeue_seconds <= 1
    assert told(after, "Complete")["reason"] == "NoCorrectKernel"
    assert after.status["completionTime"] == stamp(965)


def test_start_up_that_takes_too_long_says_what_was_missing():
    status = {"startTime": stamp(0), "startupSegmentStartTime": stamp(0)}
    pool = shared("VerifierPool", ready=False)

    found = plan(seen(search(status, budget={"startupDeadlineSeconds": 30}), 30, pod(), pool=pool))

    assert told(found, "Complete")["reason"] == "StartupDeadlineExceeded"
    assert "Verifiers: m" in told(found, "Complete")["message"]


def test_a_gated_pod_stops_the_start_up_clock():
    status = {"startTime": stamp(0), "startupSegmentStartTime": stamp(0)}
    gate = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "queued"}
    gated = pod(ready=False, phase="Pending")
    gated["status"]["conditions"].append(gate)

    found = plan(seen(search(status), 20, gated))

    assert found.status["startupUsedSeconds"] == 20
    assert "startupSegmentStartTime" not in found.status


@pytest.mark.parametrize(
    ("kind", "reason"), [("ModelReady", "ModelUnavailable"), ("VerifiersReady", "VerifiersUnavailable")]
)
def test_what_is_gone_for_too_long_ends_the_search(kind, reason):
    broken = {"type": kind, "status": "False", "reason": "R", "message": "why", "lastTransitionTime": stamp(50)}
    body = search(running(conditions=[broken]), budget={"unavailableSeconds": 100})

    assert not plan(seen(body, 149, pod())).finished
    assert told(plan(seen(body, 150, pod())), "Complete")["reason"] == reason


def test_stop_gives_the_runner_the_first_word():
    body = search(running(), stop=True)

    asked = plan(seen(body, 100, pod()))
    without = plan(seen(body, 100))
    stopping = search(running(conditions=asked.status["conditions"]), stop=True)
    silent = plan(seen(stopping, 121, pod()))

    assert told(asked, "Progressing")["reason"] == "Stopping"
    assert not asked.finished
    assert told(without, "Complete")["reason"] == "Cancelled"
    assert told(silent, "Complete")["reason"] == "Cancelled"


def test_a_finished_search_is_left_alone():
    status = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": stamp(0)}

    found = plan(seen(search(status), 9999))

    assert found.status is None
    assert not found.delete


def test_a_finished_search_goes_when_its_time_to_live_ends():
    status = {"conditions": [{"type": "Complete", "status": "True"}], "completionTime": stamp(0)}

    assert not plan(seen(search(status, ttlSecondsAfterFinished=60), 59)).delete
    assert plan(seen(search(status, ttlSecondsAfterFinished=60), 60)).delete


def test_a_runner_that_ended_is_replaced_after_its_backoff():
    first = plan(seen(search(running()), 5, pod(**ended(5))))
    second = plan(seen(search(running()), 6.5, pod(**ended(5))))

    assert first.remove == frozenset()
    assert first.requeue_seconds <= 1
    assert second.remove == {RUNNER}
    made = next(each for each in second.children if key(each) == RUNNER)
    assert made["metadata"]["annotations"]["kernelsearch.dev/restarts"] == "1"


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Failed", "reason": "NodeShutdown", "conditions": []},
        {"phase": "Failed", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(4)}]},
    ],
    ids=["refused by its node", "evicted before its start"],
)
def test_a_runner_whose_container_never_started_is_replaced_too(status):
    early = plan(seen(search(running()), 0.5, pod(**status)))
    found = plan(seen(search(running()), 6, pod(**status)))

    assert early.remove == frozenset()
    assert found.remove == {RUNNER}


def test_a_pod_without_any_time_is_replaced_at_once():
    nameless = pod(phase="Failed", conditions=[])
    del nameless["metadata"]["creationTimestamp"]

    assert plan(seen(search(running()), 0, nameless)).remove == {RUNNER}


def test_a_runner_that_lived_long_has_not_failed_in_succession():
    found = plan(seen(search(running()), 61, pod(**ended(61), restarts=5)))

    assert found.remove == {RUNNER}


def test_another_ones_model_server_is_never_adopted():
    stranger = shared("ModelServer", owner="somebody")

    found = plan(seen(search(), server=stranger))

    assert told(found, "ModelReady")["reason"] == "NameTaken"
    assert "ModelServer" not in kinds(found)


@pytest.mark.parametrize(("allowed", "reason"), [([], "NamespaceNotAllowed"), (["ns"], "R")])
def test_a_shared_model_admits_the_namespaces_that_it_names(allowed, reason):
    server = shared("ModelServer", owner="x", name="r1", namespace="models", allowedNamespaces=allowed)
    body = search(model={"name": "r1", "serverRef": {"name": "r1", "namespace": "models"}})

    found = plan(seen(body, server=server))

    assert told(found, "ModelReady")["reason"] == reason


def test_a_missing_shared_pool_says_what_to_create():
    found = plan(seen(search(verifiers={"poolRef": {"name": "h100"}}), pool=None))

    assert told(found, "VerifiersReady")["message"] == "no VerifierPool h100 in namespace ns; create it"


def test_a_condition_keeps_the_time_of_its_last_change():
    first = plan(seen(search(), 0))
    second = plan(seen(search(first.status), 50))

    assert told(second, "Accepted")["lastTransitionTime"] == stamp(0)


MOMENTS = st.integers(0, 10_000)


@given(
    used=st.integers(0, 900),
    start=MOMENTS,
    now=MOMENTS,
    flags=st.fixed_dictionaries({"suspend": st.booleans(), "stop": st.booleans()}),
    ready=st.booleans(),
    runs=st.booleans(),
)
def test_at_most_one_clock_runs_and_no_deadline_is_too_late(used, start, now, flags, ready, runs):
    status = {"startTime": stamp(0), "usedSeconds": used}
    status["segmentStartTime" if runs else "startupSegmentStartTime"] = stamp(start)

    found = plan(seen(search(status, **flags), now, pod(ready=ready))).status

    assert not ("segmentStartTime" in found and "startupSegmentStartTime" in found)
    if "segmentStartTime" in found and found["phase"] == "Running":
        latest = clocks.time(found["segmentStartTime"]).timestamp() + 900 - used
        if "deadlineTime" in found:
            assert clocks.time(found["deadlineTime"]).timestamp() <= latest
    assert found["startTime"] == stamp(0)


def test_the_diagram_names_every_phase():
    from kernelsearch.api.status import Phase

    assert all(phase.value in plans.__doc__ for phase in Phase)
