"""What is settled before anything starts: substitutes for what only a cluster has, and the mapping onto the loop."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from kernelsearch.api import validation
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.references import KeyRef
from kernelsearch.api.validation import InvalidManifestError
from kernelsearch.cli import plan, substitutes, wiring
from kernelsearch.cli.substitutes import Substitutes
from kernelverify_api.report import AuditReport, Finding
from kernelverify_api.request import CustomKernel, Language, TorchOps
from kernelverify_api.service import Capabilities, Lane

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = Capabilities(
    version="0.1.0",
    lanes=(Lane(device="cpu", name="a CPU", ready=True, facts={"cores": "2"}),),
    languages=("cpp", "triton"),
    emulated_languages=("triton",),
)


def search(**spec) -> KernelSearch:
    whole = {
        "problem": {"inline": {"reference": "import torch"}},
        "model": {"name": "m", "endpoint": {"url": "http://here/v1"}},
        "verifiers": {"serve": {"device": "cpu"}},
        **spec,
    }
    head = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "x"}}
    return validation.read({**head, "spec": whole})


def model(**more) -> dict:
    return {"name": "m", **more}


# ---- substitutes ----


def test_a_config_map_is_a_folder(tmp_path):
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "relu.py").write_text("import torch  # relu")
    asked = search(problem={"configMapRef": {"name": "problems", "key": "relu.py"}}).spec.problem

    assert substitutes.reference(asked, Substitutes(config_dir=tmp_path)) == "import torch  # relu"


def test_a_key_that_the_folder_lacks_is_told_with_its_path(tmp_path):
    asked = search(problem={"configMapRef": {"name": "problems", "key": "relu.py"}}).spec.problem

    with pytest.raises(InvalidManifestError, match=r"problems/relu\.py, which cannot be read"):
        substitutes.reference(asked, Substitutes(config_dir=tmp_path))


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe", "no UTF-8"), (b" \n", "at least 1")])
def test_a_reference_that_is_no_text_is_told(tmp_path, content, said):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(content)
    asked = search(problem={"configMapRef": {"name": "a", "key": "b"}}).spec.problem

    with pytest.raises(InvalidManifestError, match=said):
        substitutes.reference(asked, Substitutes(config_dir=tmp_path))


@pytest.mark.parametrize("inside", ["", "KernelBench"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_problem_of_kernelbench_is_found_by_its_number(tmp_path, inside, scheme):
    level = tmp_path / inside / "level1"
    level.mkdir(parents=True)
    (level / "23_Softmax.py").write_text("import torch  # softmax")
    (level / "2_Other.py").write_text("import torch  # other")
    bench = {"level": 1, "id": 23, "source": {"url": f"{scheme}{tmp_path}"}}

    found = substitutes.reference(search(problem={"kernelBench": bench}).spec.problem, Substitutes())

    assert found == "import torch  # softmax"


@pytest.mark.parametrize(
    ("name", "key", "variable"),
    [
        ("deepseek", "api-key", "KERNELSEARCH_SECRET_DEEPSEEK_API_KEY"),
        ("my.secret", "k", "KERNELSEARCH_SECRET_MY_SECRET_K"),
    ],
)
def test_a_secret_is_a_variable(name, key, variable):
    assert substitutes.variable(KeyRef(name=name, key=key)) == variable


def test_the_api_key_comes_from_the_environment():
    endpoint = {"url": "https://far/v1", "apiKeySecretRef": {"name": "deepseek", "key": "api-key"}}
    given = Substitutes(environment={"KERNELSEARCH_SECRET_DEEPSEEK_API_KEY": " sk-1 \n"})

    found = substitutes.endpoint(search(model=model(endpoint=endpoint)), given)

    assert (found.url, found.model) == ("https://far/v1", "m")
    assert found.api_key is not None
    assert found.api_key() == "sk-1"


@pytest.mark.parametrize("place", [{"serverRef": {"name": "r1"}}, {"serve": {"preset": "r1"}}])
def test_a_url_stands_for_a_model_that_only_a_cluster_can_start(place):
    given = Substitutes(model_url="http://there/v1", model_name="other", environment={})

    found = substitutes.endpoint(search(model=model(**place)), given)

    assert (found.url, found.model, found.api_key) == ("http://there/v1", "other", None)


def test_a_url_of_ones_own_has_a_variable_of_its_own():
    given = Substitutes(model_url="http://there/v1", environment={"KERNELSEARCH_SECRET_MODEL_API_KEY": "k"})

    key = substitutes.endpoint(search(), given).api_key

    assert key is not None
    assert key() == "k"


def test_a_url_that_is_none_is_told_by_its_flag():
    with pytest.raises(InvalidManifestError, match=r"--model-url: .*'there'"):
        substitutes.endpoint(search(), Substitutes(model_url="there", environment={}))


def test_urls_of_verifiers_win_over_what_the_manifest_says():
    given = Substitutes(verifier_urls=("http://a", "http://b"))

    assert substitutes.verifier_urls(search(verifiers={"poolRef": {"name": "p"}}), given) == ("http://a", "http://b")
    assert substitutes.verifier_urls(search(), Substitutes()) == ()


@pytest.mark.parametrize("url", ["there:80", "ftp://there", "http://"])
def test_a_verifiers_url_that_is_none_is_told_by_its_flag(url):
    with pytest.raises(InvalidManifestError, match=r"--verifier-url: is .*write it with scheme and host"):
        substitutes.verifier_urls(search(), Substitutes(verifier_urls=(url,)))


def test_certificates_that_are_none_are_told_by_their_field(tmp_path):
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "pem").write_text("trust me")
    endpoint = {"url": "https://far/v1", "caConfigMapRef": {"name": "ca", "key": "pem"}}

    with pytest.raises(InvalidManifestError, match=r"caConfigMapRef: holds no certificates in PEM"):
        substitutes.endpoint(search(model=model(endpoint=endpoint)), Substitutes(config_dir=tmp_path))


# ---- the mapping ----


def test_a_search_becomes_what_the_loop_takes():
    asked = search(
        problem={"inline": {"reference": "import torch"}, "dtype": "bfloat16", "tf32": "Allowed"},
        kernel={"languages": ["cpp"], "customKernel": "Optional", "torchOps": "Forbid"},
        search={"chains": 3, "strategy": "Serial", "seed": 7, "initialPrompt": "be brief"},
        baselines=["eager", "compile"],
        budget={"gracePeriodSeconds": 5, "unavailableSeconds": 9},
    )
    problem = wiring.problem(asked, "import torch")

    config = wiring.config(asked, problem, (Language.CPP,), CPU, "m", None)

    assert (config.problem.dtype, config.problem.allow_tf32, config.problem.name) == ("bfloat16", True, "x")
    assert (config.custom_kernel, config.torch_ops) == (CustomKernel.OPTIONAL, TorchOps.FORBID)
    assert (config.chains, config.strategy, config.seed, config.initial_prompt) == (3, "Serial", 7, "be brief")
    assert (config.baselines, config.grace_seconds, config.unavailable_seconds) == (("eager", "compile"), 5.0, 9.0)
    assert (config.hardware.name, config.hardware.facts) == ("a CPU", {"cores": "2"})
    assert wiring.options(asked).baselines == config.baselines
    assert wiring.origin(asked, problem).check.endswith("--dtype bfloat16 --allow-tf32")


def test_the_budget_is_the_manifests_unless_a_deadline_is_given():
    asked = search(budget={"deadlineSeconds": 60, "maxAttempts": 3, "maxTokens": 9, "targetSpeedup": "2.5"})

    assert wiring.live_spec(asked, None).deadline == 60.0
    assert wiring.live_spec(asked, 30).deadline == 30.0
    assert wiring.live_spec(asked, None).target_speedup == 2.5
    assert wiring.live_spec(search(), None).target_speedup is None


def test_sampling_is_read_from_its_texts():
    asked = search(model=model(endpoint={"url": "http://h/v1"}, sampling={"temperature": "1.5", "topP": "0.5"}))

    assert (wiring.sampling(asked).temperature, wiring.sampling(asked).top_p) == (1.5, 0.5)


def test_languages_that_cannot_be_judged_here_are_left_out_and_told():
    found = wiring.languages(search(kernel={"languages": ["cuda", "triton"]}), CPU)

    assert found.allowed == (Language.TRITON,)
    assert "cuda are not asked for" in found.note
    assert "triton runs by interpreter" in found.note


def test_no_language_that_can_be_judged_is_an_invalid_manifest():
    with pytest.raises(InvalidManifestError, match=r"spec\.kernel\.languages: is \[cuda\]; .* cpp and triton"):
        wiring.languages(search(kernel={"languages": ["cuda"]}), CPU)


def test_a_baseline_that_the_verifier_lacks_is_told_by_its_place():
    with pytest.raises(InvalidManifestError, match=r"spec\.baselines\[1\]: .*compile"):
        wiring.check_baselines(search(baselines=["eager", "compile"]), CPU)


def test_a_baseline_of_the_reference_is_left_to_the_verifier():
    wiring.check_baselines(search(baselines=["eager", "flexAttention"]), CPU)


def test_an_unsound_problem_is_degenerate_by_its_first_finding():
    findings = tuple(Finding(kind=kind, criterion="ours", evidence="e" * 600) for kind in ("zeros", "constant"))

    found = wiring.degenerate(AuditReport(problem="x", sound=False, findings=findings))

    assert found is not None
    assert (found["finding"], found["criterion"], len(found["evidence"])) == ("zeros", "ours", 500)


def test_a_sound_problem_is_not_degenerate_whatever_a_loose_criterion_finds():
    finding = Finding(kind="zeros", criterion="kernelbench_1e-2", evidence="e")

    assert wiring.degenerate(AuditReport(problem="x", sound=True, findings=(finding,))) is None


def test_a_verifier_without_lanes_is_a_cpu_of_no_name():
    assert wiring.hardware(CPU.model_copy(update={"lanes": ()})).device == "cpu"


def test_what_this_machine_does_not_do_is_told():
    asked = search(verifiers={"serve": {"device": "cpu", "replicas": 2}}, archive={"url": "s3://x"})

    assert len(wiring.not_used_here(asked)) == 2
    assert wiring.not_used_here(search()) == []


# ---- the plan ----


def test_a_replay_stands_for_the_model():
    quickstart = str(ROOT / "examples/quickstart.yaml")

    settled = plan.settle(plan.Asked(quickstart, replay=ROOT / "examples/replay/quickstart.yaml"))

    assert settled.endpoint.model == "replay:quickstart"
    assert settled.origin.check == "--custom-kernel required --torch-ops report --dtype float32"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"replay": ROOT / "none.yaml"}, "--replay: .*cannot be read"),
        ({"replay": ROOT / "none.yaml", "model_url": "http://x"}, "give one of them"),
    ],
)
def test_a_replay_that_cannot_be_used_is_told_by_its_flag(more, said):
    with pytest.raises(InvalidManifestError, match=said):
        plan.settle(plan.Asked(str(ROOT / "examples/quickstart.yaml"), **more))


def test_another_platform_is_refused_in_one_sentence_unless_a_verifier_is_given(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    quickstart = str(ROOT / "examples/quickstart.yaml")

    with pytest.raises(InvalidManifestError, match=r"needs Linux \(this is darwin\); give --verifier-url") as caught:
        plan.settle(plan.Asked(quickstart, model_url="http://model"))
    assert len(str(caught.value).splitlines()) == 1
    settled = plan.settle(plan.Asked(quickstart, model_url="http://model", verifier_urls=("http://there",)))
    assert settled.verifier_urls == ("http://there",)


def test_a_plan_cannot_be_changed():
    with pytest.raises((AttributeError, ValidationError)):
        plan.settle(plan.Asked(str(ROOT / "examples/quickstart.yaml"), model_url="http://model")).text = ""
