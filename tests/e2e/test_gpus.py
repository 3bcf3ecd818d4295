"""GPUs that are none, offered by a device plugin: who gets one, and what those who get none say."""

import pytest

from watching import condition, until

pytestmark = [pytest.mark.needs("own_cluster"), pytest.mark.timeout(900)]  # its GPUs are counted
GPU = "nvidia.com/gpu"


def pool(name, count):
    kind = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "VerifierPool", "metadata": {"name": name}}
    return {**kind, "spec": {"replicas": 1, "device": "cuda", "gpu": {"count": count}}}


def test_a_pool_gets_the_gpus_that_there_are_and_says_when_there_are_too_few(place):
    place.apply(pool("one", 1), pool("many", 16))

    def given(name):
        """GPUs of its pod's container once that has started, as the kubelet allotted them. There it ends: no lane for
        CUDA exists yet.
        """
        for pod in place.pods("verifier"):
            if pod["metadata"]["labels"]["kernelsearch.dev/owner-name"] == name:
                for status in pod["status"].get("containerStatuses", ()):
                    if status["state"].get("running") or status.get("lastState", {}).get("terminated"):
                        return status.get("allocatedResources", {}).get(GPU, "0")
        return "0"

    until(lambda: given("one") == "1")
    until(lambda: f"Insufficient {GPU}" in condition(place.get("kvpool", "many"), "Ready").get("message", ""))
    assert given("many") == "0"
