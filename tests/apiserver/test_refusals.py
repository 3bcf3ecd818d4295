"""What the command line refuses, the API server refuses too, or the operator does; the few differences are listed."""

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / "unit/manifests/bad"
OF_THE_LAPTOP = {
    "config_map": "a cluster has ConfigMaps",
    "kernel_bench_elsewhere": "read by the operator, which refuses it",
    "kernel_bench_missing": "read by the operator, which refuses it",
    "kind_of_a_cluster": "a cluster serves the other kinds",
    "model_server": "a cluster has ModelServers",
    "model_to_be_served": "a cluster serves models",
    "secret": "a cluster has Secrets",
    "suspended": "a cluster waits for a suspended search",
    "two_documents": "kubectl applies each of them",
    "verifier_pool": "a cluster has VerifierPools",
    "deadline_empty": "the server takes null for absence, and fills in the default",
    "key_twice_deep": "kubectl takes the last of two keys",
    "no_utf8": "kubectl takes what is no text for question marks",
}
"""Taken by a cluster, with the reason."""
BAD = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in OF_THE_LAPTOP)

MODEL_SERVER = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "ModelServer"}
POOL = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "VerifierPool"}
SHARED = [
    ({**MODEL_SERVER, "spec": {"model": "r1"}}, "give preset, or image"),
    ({**MODEL_SERVER, "spec": {"preset": "x"}}, "spec.model: Required value"),
    ({**MODEL_SERVER, "spec": {"model": "r1", "preset": "x", "engine": "ollama"}}, 'supported values: "vllm"'),
    ({**MODEL_SERVER, "spec": {"model": "r1", "preset": "x", "replicas": 0}}, "greater than or equal to 1"),
    ({**MODEL_SERVER, "spec": {"model": "r1", "preset": "x", "port": 80}}, "greater than or equal to 1024"),
    ({**MODEL_SERVER, "spec": {"model": "r1", "preset": "x", "idleTTLSeconds": -1}}, "greater than or equal to 0"),
    ({**MODEL_SERVER, "spec": {"model": "r1", "image": "a b"}}, "spec.image"),
    ({**MODEL_SERVER, "spec": {"model": "r1", "preset": "x", "surprise": 1}}, "unknown field"),
    ({**POOL, "spec": {"device": "tpu"}}, 'supported values: "cuda", "cpu"'),
    ({**POOL, "spec": {"device": "cpu", "gpu": {"count": 1}}}, "gpu belongs to device: cuda"),
    ({**POOL, "spec": {"gpu": {"count": 17}}}, "less than or equal to 16"),
    ({**POOL, "spec": {"gpu": {"resourceName": "gpu"}}}, "resourceName"),
    ({**POOL, "spec": {"replicas": "2"}}, "must be of type integer"),
    ({**POOL, "spec": {"allowedNamespaces": ["a", "a"]}}, "Duplicate value"),
]


def test_there_are_enough_of_them():
    assert len(BAD) + len(SHARED) >= 25


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_search_is_refused(namespace, path):
    told = namespace.kubectl("create", "--validate=strict", "-f", str(path), check=False)

    assert "error" in told.lower() or "invalid" in told.lower(), told
    assert namespace.kubectl("get", "ksearch", "-o", "name") == ""


@pytest.mark.parametrize(("manifest", "said"), SHARED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_bad_shared_object_is_refused_in_words(namespace, manifest, said):
    text = yaml.safe_dump({**manifest, "metadata": {"name": "bad"}})

    told = namespace.kubectl("create", "--validate=strict", "-f", "-", stdin=text, check=False)

    assert said in told


@pytest.mark.parametrize("name", ["Capital", "a.dot", "1digit", "a" * 41, "end-"])
def test_a_name_that_children_cannot_bear_is_refused(namespace, name):
    text = yaml.safe_dump({**POOL, "metadata": {"name": name}, "spec": {"device": "cpu"}})

    told = namespace.kubectl("create", "-f", "-", stdin=text, check=False)

    assert "metadata.name" in told


def test_every_exception_is_a_manifest():
    assert set(OF_THE_LAPTOP) <= {path.stem for path in FOLDER.glob("*.yaml")}
