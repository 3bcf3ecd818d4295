"""GPUs that are none, offered by a device plugin: who gets one, and what those who get none say."""

import pytest

from watching import condition, until

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(900)]  # its GPUs are counted
GPU = "nvidia.com/gpu"


def pool(name, count):
    kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "VerifierPool", "metadata": {"name": name}}
    return {**kind, "spec": {"replicas": 1, "device": "cuda", "gpu": {"count": count}}}


def server(name, count):
    """One that needs no GPU for what it does, and runs on one all the same."""
    kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "ModelServer", "metadata": {"name": name}}
    return {**kind, "spec": {"model": "replay:quickstart", "preset": "replay-quickstart", "gpu": {"count": count}}}


def test_who_gets_a_gpu_runs_and_who_gets_none_says_why(place):
    place.apply(server("served", 1), pool("one", 1), pool("many", 16))

    def given(name):
        """GPUs of its pod's container once that has started, as the kubelet allotted them."""
        for pod in place.pods():
            if pod["metadata"]["labels"]["kernelsearch.dev/owner-name"] == name:
                for status in pod["status"].get("containerStatuses", ()):
                    if status["state"].get("running") or status.get("lastState", {}).get("terminated"):
                        return status.get("allocatedResources", {}).get(GPU, "0")
        return "0"

    def ready(kind, name):
        return condition(place.get(kind, name), "Ready")

    until(lambda: ready("kmodel", "served").get("status") == "True")
    assert given("served") == "1"
    until(lambda: given("one") == "1")
    # There it ends, as no lane for CUDA exists yet.
    until(lambda: "--device cuda is not available yet" in ready("kvpool", "one").get("message", ""))
    until(lambda: f"Insufficient {GPU}" in ready("kvpool", "many").get("message", ""))
    assert given("many") == "0"
    assert ready("kmodel", "served")["status"] == "True"
