"""What the chart makes of its values, by the real helm."""

import json
import sys
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

import chart
from chart import EVERYTHING
from kernelsearch.api import validation
from kernelsearch.api.model_server import ModelServer
from kernelsearch.controller import cluster, handlers, settings, uninstall
from kernelsearch.controller.builders import model_server as build
from kernelsearch.controller.builders import pods, runner, template
from kernelsearch.controller.plan import model_server as model_plan

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(900)]  # helm is built where it is not there yet

SOME = {"watchNamespaces": ["alpha", "beta"]}
CASES = {"defaults": {}, "some namespaces": SOME, "everything": EVERYTHING, "both": {**SOME, **EVERYTHING}}


@pytest.fixture(params=CASES)
def rendered(request, tmp_path: Path) -> chart.Rendered:
    return chart.render(tmp_path, CASES[request.param])


def operator(rendered: chart.Rendered) -> dict[str, Any]:
    deployment = rendered.one("Deployment", "kernelsearch-operator")
    found: dict[str, Any] = deployment["spec"]["template"]
    return found


def read(rendered: chart.Rendered, folder: Path) -> settings.Settings:
    """The settings that the operator would read in its pod."""
    files = rendered.one("ConfigMap", "kernelsearch-operator")["data"]
    for name, text in files.items():
        (folder / name).write_text(text)
    container = operator(rendered)["spec"]["containers"][0]
    environment = {each["name"]: each["value"].replace("/etc/kernelsearch", str(folder)) for each in given(container)}
    return settings.read(environment)


def given(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in container["env"] if "value" in each]


# ---- values ----


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_no_fault(case, tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(CASES[case]))

    said = chart.helm("lint", "--strict", str(chart.FOLDER), "-f", str(values), home=tmp_path)

    assert "0 chart(s) failed" in said


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"watchNamespace": ["a"]}, "watchNamespace"),
        ({"watchNamespaces": "a"}, "watchNamespaces"),
        ({"watchNamespaces": ["A_b"]}, "watchNamespaces"),
        ({"operator": {"replicas": 2}}, "replicas"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"policy": {"maxReplicas": 0}}, "maxReplicas"),
        ({"policy": {"allowedEndpointHosts": ["https://example.com"]}}, "allowedEndpointHosts"),
        ({"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}}, "apiServerCIDRs"),
        ({"networkPolicy": {"externalPorts": [0]}}, "externalPorts"),
        ({"proxy": {"https": "proxy.example.com:3128"}}, "proxy"),
        ({"presets": {"mine": {"engin": "vllm"}}}, "engin"),
        ({"metrics": {"podMonitor": {"interval": 30}}}, "interval"),
        ({"runner": {"resources": {"request": {}}}}, "request"),
        ({"imagePullSecrets": [{"name": "x"}]}, "imagePullSecrets"),
    ],
)
def test_a_value_that_is_none_is_refused_by_its_name(wrong, named, tmp_path):
    with pytest.raises(chart.RefusedError, match=named):
        chart.render(tmp_path, wrong)


def test_the_schema_knows_every_value_and_is_closed():
    schema = json.loads((chart.FOLDER / "values.schema.json").read_text())
    values = yaml.safe_load((chart.FOLDER / "values.yaml").read_text())

    assert list(_differences(schema, values, schema["definitions"])) == []


def _differences(schema, values, definitions, path=""):
    """Where values and schema have different keys."""
    schema = definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    if "properties" not in schema or path == ".global":
        return
    if schema.get("additionalProperties") is not False:
        yield f"{path} is open"
    allowed = set(schema["properties"])
    optional = {"requests", "limits", "claims"}
    if wrong := (set(values) ^ allowed) - optional:
        yield f"{path}: {wrong}"
    for name in set(values) & allowed:
        yield from _differences(schema["properties"][name], values[name], definitions, f"{path}.{name}")


@pytest.fixture
def document(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "charts"))
    yield __import__("document")
    sys.modules.pop("document")


def test_the_table_of_values_is_current(document):
    assert document.PAGE.read_text() == document.page(), "run `python charts/document.py`"


def test_every_value_says_what_it_is(document):
    text = (chart.FOLDER / "values.yaml").read_text()
    said = document.comments(text)

    assert [path for path, _ in document.leaves(yaml.safe_load(text)) if path not in said] == []


# ---- the operator ----


def test_the_operator_reads_what_the_chart_wrote(rendered, tmp_path):
    found = read(rendered, tmp_path)

    assert "replay-quickstart" in found.presets
    assert found.operator_image.split("@")[0].split(":")[0].endswith("kernelsearch")


def test_defaults_of_the_chart_are_those_of_the_operator(tmp_path):
    found = read(chart.render(tmp_path), tmp_path).policy

    plain = settings.Policy()
    assert found.network_policy == plain.network_policy
    assert found.verifier == plain.verifier
    assert found.model.scratch == plain.model.scratch
    assert found.max_replicas == plain.max_replicas
    assert found.allowed_images == plain.allowed_images


def test_every_value_of_the_policy_arrives(tmp_path):
    found = read(chart.render(tmp_path, EVERYTHING), tmp_path)

    assert found.operator_image == f"registry.example.com/team/kernelsearch@sha256:{'a' * 64}"
    assert found.verifier_image == "registry.example.com/team/kernelverify:cuda"
    policy = found.policy
    assert policy.allowed_images == ("registry.example.com/",)
    assert policy.allowed_endpoint_hosts == ("*.example.com",)
    assert policy.allow_custom_engine is False
    assert policy.require_runtime_class == "gvisor"
    assert policy.max_replicas == 4
    assert policy.model.scratch == "1Ti"
    assert policy.network_policy.api_server_cidrs == ("10.0.0.1/32",)
    assert policy.network_policy.scrape_from == ({"namespaceSelector": {}},)
    assert policy.network_policy.external_ports == (443, 8443)
    assert policy.network_policy.dns_ports == (5353,)
    assert policy.runner.placement() == {
        "nodeSelector": {"role": "searches"},
        "tolerations": [{"key": "searches", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "searches",
    }
    assert policy.image_pull_secrets == ("registry",)
    assert policy.image_pull_policy == "Always"
    assert policy.verifier.extra_volume_mounts == ({"name": "x", "mountPath": "/x"},)


def test_watched_namespaces_arrive(tmp_path):
    assert read(chart.render(tmp_path, SOME), tmp_path).namespaces == ("alpha", "beta")


def test_a_proxy_is_for_what_leaves_the_cluster_only(tmp_path):
    policy = read(chart.render(tmp_path, EVERYTHING), tmp_path).policy

    for role in (policy.runner, policy.model):
        proxy = {each["name"]: each["value"] for each in role.env}
        assert proxy["HTTPS_PROXY"] == proxy["https_proxy"] == "http://proxy.example.com:3128"
        assert "HTTP_PROXY" not in proxy
        without = set(proxy["NO_PROXY"].split(","))
        assert without >= {".svc", "localhost", "$(KUBERNETES_SERVICE_HOST)", "example.com"}
    assert policy.verifier.env == ()
    told = policy.network_policy.proxy
    assert (told.http, told.https) == ("", "http://proxy.example.com:3128")
    assert told.no_proxy == proxy["NO_PROXY"]


def test_another_configuration_is_another_pod(tmp_path):
    annotations = [
        operator(chart.render(tmp_path, values))["metadata"]["annotations"]
        for values in ({}, {"policy": {"maxReplicas": 3}}, {"presets": {"replay-quickstart": None}})
    ]

    assert len({json.dumps(each) for each in annotations}) == 3


def test_a_preset_is_added_and_removed_by_name(tmp_path):
    mine = {"engine": "vllm", "image": "vllm/vllm-openai:v1", "gpu": {"count": 2}}

    presets = read(chart.render(tmp_path, {"presets": {"mine": mine, "qwen3-8b-1xgpu": None}}), tmp_path).presets

    assert presets["mine"] == mine
    assert "qwen3-8b-1xgpu" not in presets
    assert "r1-fp8-8xh200" in presets


def model_server(**spec: Any) -> ModelServer:
    manifest = {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": "m"},
        "spec": {"model": "m", **spec},
    }
    return ModelServer.model_validate_json(json.dumps(manifest))


def test_every_preset_can_be_served(tmp_path):
    found = read(chart.render(tmp_path), tmp_path)

    for name, preset in found.presets.items():
        server = model_server(preset=name, weights={"pvc": "weights"} if "gpu" in preset else {})
        assert list(model_plan.faults(server, found)) == []
        serving = build.Serving.resolve(server, preset, found.operator_image)
        owner = {
            "apiVersion": "kernelsearch.dev/v1alpha1",
            "kind": "ModelServer",
            "metadata": {"name": "m", "namespace": "n", "uid": "u"},
        }
        spec = build.deployment(owner, server, serving, found, 1)["spec"]["template"]["spec"]
        limits = spec["containers"][0]["resources"].get("limits", {})
        assert limits.get("nvidia.com/gpu") == (str(preset["gpu"]["count"]) if "gpu" in preset else None)


def test_deepseek_r1_is_refused_on_a_node_that_does_not_hold_it(tmp_path):
    found = read(chart.render(tmp_path), tmp_path)
    gpu = {"count": 8, "product": "NVIDIA-H100-80GB-HBM3"}
    server = model_server(preset="r1-fp8-8xh200", gpu=gpu, weights={"pvc": "r1"})

    (fault,) = model_plan.faults(server, found)

    assert "hold 640 GB and the weights need 805 GB" in fault


def test_a_presets_resource_name_is_asked_for(tmp_path):
    preset = {"engine": "vllm", "image": "x", "gpu": {"resourceName": "amd.com/gpu", "count": 2}}
    found = read(chart.render(tmp_path, {"presets": {"mine": preset}}), tmp_path)

    serving = build.Serving.resolve(model_server(preset="mine"), found.presets["mine"], "")

    assert serving.gpu is not None
    assert (serving.gpu.resource_name, serving.gpu.count) == ("amd.com/gpu", 2)


def test_there_is_never_a_second_operator(rendered):
    spec = rendered.one("Deployment", "kernelsearch-operator")["spec"]

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_who_waits_for_the_operators_end_waits_longer_than_it_may_take(rendered):
    own = kopf.OperatorSettings()
    handlers.configure(own, namespaced=False)
    grace = operator(rendered)["spec"]["terminationGracePeriodSeconds"]
    (job,) = (each for each in rendered.all("Job") if "helm.sh/hook" in each["metadata"]["annotations"])

    waits = [
        2 * handlers.CANCEL_S,
        own.process.ultimate_exiting_timeout,
        grace,
        uninstall.WAIT_S,
        job["spec"]["activeDeadlineSeconds"],
    ]

    assert waits == sorted(set(waits))


def test_every_pod_meets_the_restricted_standard(rendered):
    made = [each["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for each in rendered.all(kind)]
    made += [each["spec"] for each in rendered.all("Pod")]

    assert len(made) >= 2
    for spec in made:
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == pods.USER
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == pods.CONTAINER_SECURITY
            assert container["resources"]["limits"]["memory"]


# ---- rights ----


def roles(rendered: chart.Rendered) -> list[dict[str, Any]]:
    return [*rendered.all("Role"), *rendered.all("ClusterRole")]


def test_no_role_holds_a_star_or_touches_secrets(rendered):
    rules = [rule for role in roles(rendered) for rule in role["rules"]]

    assert rules
    for rule in rules:
        words = [word for part in rule.values() for word in part]
        assert "*" not in words
        assert not {"secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "escalate", "bind"} & set(words)


def test_every_role_is_bound_where_it_stands(rendered):
    bound = {
        (each["metadata"].get("namespace"), each["roleRef"]["kind"], each["roleRef"]["name"])
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for each in rendered.all(kind)
    }
    made = {
        (each["metadata"].get("namespace"), each["kind"], each["metadata"]["name"])
        for each in roles(rendered)
        if not _aggregated(each)
    }

    assert bound == made


def _aggregated(role: dict[str, Any]) -> bool:
    return any("aggregate-to" in label for label in role["metadata"].get("labels") or ())


def test_an_installation_for_some_namespaces_has_no_right_elsewhere(tmp_path):
    found = chart.render(tmp_path, SOME)

    assert [each for each in found.all("ClusterRole") if not _aggregated(each)] == []
    assert found.all("ClusterRoleBinding") == []
    namespaces = {each["metadata"].get("namespace") for each in found.all("Role")}
    assert namespaces == {"alpha", "beta", None}


def allowed(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Every (group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }


@pytest.fixture(params=["defaults", "some namespaces"])
def rights(request, tmp_path) -> set[tuple[str, str, str]]:
    found = chart.render(tmp_path, CASES[request.param])
    (first, *_) = [
        each for each in roles(found) if not _aggregated(each) and each["metadata"]["name"].endswith("-operator")
    ]
    return allowed(first["rules"])


def test_the_operator_may_do_what_it_does(rights):
    ours, made = ("get", "list", "watch", "patch", "delete"), ("get", "list", "watch", "create", "patch", "delete")
    needed = {(cluster.OURS, plural, verb) for plural in handlers.OURS.values() for verb in ours}
    needed |= {(cluster.OURS, f"{plural}/status", "patch") for plural in handlers.OURS.values()}
    needed |= {(cluster.OURS, f"{plural}/finalizers", "update") for plural in handlers.OURS.values()}
    needed |= {(cluster.OURS, plural, "create") for plural in ("modelservers", "verifierpools")}
    needed |= {(group, plural, verb) for group, plural in handlers.CHILDREN for verb in made}
    needed |= {("", "events", "create"), ("", "events", "patch"), ("", "configmaps", "update")}

    assert rights - needed <= {
        *(("apiextensions.k8s.io", "customresourcedefinitions", verb) for verb in ("list", "watch")),
        *(("", "namespaces", verb) for verb in ("list", "watch")),
    }
    assert needed <= rights


def test_every_kind_that_the_operator_writes_is_in_its_rights(rights):
    written = {(kind.group, kind.plural) for kind in cluster.KINDS.values()}

    assert written <= {(group, resource) for group, resource, _ in rights}


def test_the_operator_holds_what_it_grants_to_a_runner(rights):
    owner = {
        "apiVersion": "kernelsearch.dev/v1alpha1",
        "kind": "KernelSearch",
        "metadata": {"name": "x", "namespace": "n", "uid": "u"},
    }

    assert allowed(runner.role(owner)["rules"]) <= rights


def test_view_may_not_write_and_each_role_goes_to_its_own(tmp_path):
    found = {
        next(label.rsplit("-", 1)[1] for label in each["metadata"]["labels"] if "aggregate-to" in label): each["rules"]
        for each in chart.render(tmp_path).all("ClusterRole")
        if _aggregated(each)
    }

    assert found.keys() == {"view", "edit", "admin"}
    assert {verb for rule in found["view"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_rights_for_people_can_be_left_to_the_cluster(tmp_path):
    found = chart.render(tmp_path, {"rbac": {"aggregate": False}})

    assert [each for each in found.all("ClusterRole") if _aggregated(each)] == []


# ---- definitions ----


def test_definitions_stay_when_the_release_goes(tmp_path, root):
    found = chart.render(tmp_path).all("CustomResourceDefinition")

    assert len(found) == len(list((root / "crds").iterdir()))
    for each in found:
        assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        each["metadata"].pop("labels")
        assert each == yaml.safe_load((root / "crds" / f"{each['spec']['names']['plural']}.yaml").read_text())


def test_definitions_can_belong_to_another_release(tmp_path):
    assert chart.render(tmp_path, {"crds": {"install": False}}).all("CustomResourceDefinition") == []


# ---- the end ----


def test_uninstalling_runs_before_anything_goes_and_with_rights_of_its_own(rendered):
    job = rendered.one("Job", "kernelsearch-operator-uninstall")

    spec = job["spec"]["template"]["spec"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    account = rendered.one("ServiceAccount", spec["serviceAccountName"])
    assert account["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    weights = [each["metadata"]["annotations"]["helm.sh/hook-weight"] for each in (account, job)]
    assert weights == ["0", "1"]


def test_the_uninstall_knows_the_operators_pods_and_may_do_what_it_does(rendered):
    job = rendered.one("Job", "kernelsearch-operator-uninstall")["spec"]["template"]["spec"]
    arguments = job["containers"][0]["args"]
    told = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    pods_ = operator(rendered)["metadata"]["labels"]
    granted = [role for role in roles(rendered) if role["metadata"]["name"].endswith("-uninstall")]

    assert pods_[uninstall.INSTANCE] == told["--release"]
    assert dict(each.split("=") for each in uninstall.OPERATOR.split(",")).items() <= pods_.items()
    for plural in handlers.OURS.values():
        needed = {(cluster.OURS, plural, verb) for verb in ("get", "list", "patch")}
        assert any(needed <= allowed(role["rules"]) for role in granted)


def test_the_uninstalls_pod_is_not_taken_for_the_operators(rendered):
    selector = rendered.one("Service", "kernelsearch-operator")["spec"]["selector"]
    labels = rendered.one("Job", "kernelsearch-operator-uninstall")["spec"]["template"]["metadata"]["labels"]

    assert not selector.items() <= labels.items()


# ---- the first steps ----


def smoke(rendered: chart.Rendered) -> tuple[dict[str, Any], dict[str, Any]]:
    """The test's pod and its search."""
    (pod,) = rendered.all("Pod")
    text = rendered.one("ConfigMap", "kernelsearch-operator-test")["data"]["search.yaml"]
    found: dict[str, Any] = yaml.safe_load(text)
    return pod, found


def test_helm_test_searches_as_the_quickstart_does(tmp_path, root):
    _, search = smoke(chart.render(tmp_path))

    example = yaml.safe_load((root / "examples/quickstart.yaml").read_text())["spec"]
    assert validation.read(search).spec.budget.target_speedup == "0.001"
    search["spec"]["verifiers"]["serve"].pop("podTemplate")
    assert {**search["spec"], "budget": {}} == {**example, "budget": {}}


def test_helm_test_fits_a_laptop_and_stands_where_runners_do(tmp_path):
    _, search = smoke(chart.render(tmp_path, EVERYTHING))

    served = [search["spec"][part]["serve"]["podTemplate"] for part in ("model", "verifiers")]
    for each in served:
        assert list(template.faults(each, "podTemplate")) == []
        assert each["spec"]["tolerations"] == EVERYTHING["runner"]["tolerations"]
        (container,) = each["spec"]["containers"]
        assert int(container["resources"]["limits"]["cpu"]) <= 2
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_helm_test_waits_for_as_long_as_the_search_may_take(tmp_path):
    pod, search = smoke(chart.render(tmp_path, {"smokeTest": {"startupDeadlineSeconds": 100}}))

    budget = search["spec"]["budget"]
    assert budget["startupDeadlineSeconds"] == 100
    patience = int(pod["spec"]["containers"][0]["args"][-1])
    assert patience > 100 + budget["deadlineSeconds"] + budget["gracePeriodSeconds"]


@pytest.mark.parametrize(
    ("watched", "place"), [([], chart.NAMESPACE), (["a", "b"], "a"), (["a", chart.NAMESPACE], chart.NAMESPACE)]
)
def test_helm_test_searches_where_the_operator_looks(watched, place, tmp_path):
    found = chart.render(tmp_path, {"watchNamespaces": watched})

    assert smoke(found)[1]["metadata"]["namespace"] == place
    assert found.one("Role", "kernelsearch-operator-test")["metadata"]["namespace"] == place


def test_helm_test_can_be_left_out(tmp_path):
    assert chart.render(tmp_path, {"smokeTest": {"enabled": False}}).all("Pod") == []


def notes(tmp_path: Path, values: dict[str, Any]) -> str:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    asked = ("install", "kernelsearch", str(chart.FOLDER), "-n", "team", "-f", str(file), "--dry-run=client")
    return chart.helm(*asked, home=tmp_path).split("NOTES:")[1]


def test_the_notes_say_what_to_do_next_and_what_is_open(tmp_path):
    said = notes(tmp_path, {})

    for words in (
        "rollout status deployment/kernelsearch-operator",
        "helm test kernelsearch -n team",
        "every namespace",
        "asks for 4 CPUs and 16Gi on one node",
    ):
        assert words in said
    for warning in ("only where the cluster's network plugin", "apiServerCIDRs", "allowedEndpointHosts"):
        assert warning in said


def test_the_notes_do_not_warn_of_what_is_closed(tmp_path):
    said = notes(tmp_path, {**EVERYTHING, "watchNamespaces": ["a", "b"]})

    assert "a, b" in said
    assert "apiServerCIDRs" not in said
    assert "allowedEndpointHosts" not in said
