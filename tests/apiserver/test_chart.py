"""What a real API server makes of the chart: all of it is accepted, and the rights are what the operator needs."""

import json
import time

import pytest
import yaml

import chart
from cluster import system
from kernelsearch.controller import cluster, handlers

ACCOUNT = "kernelsearch-operator"
PROMETHEUS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


@pytest.fixture
def restricted(namespace):
    """Where pods are refused that do not meet the standard."""
    namespace.cluster.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


def render(namespace, folder, values):
    return chart.render(folder, values, ["-n", namespace.name])


def dry_run(namespace, objects):
    """As an installation would send them; nothing is kept."""
    asked = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    return namespace.kubectl(*asked, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def pods_of(rendered):
    """What controllers would make of the templates."""
    for kind in ("Deployment", "Job"):
        for each in rendered.all(kind):
            template = each["spec"]["template"]
            yield {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": each["metadata"]["name"]}}


# ---- acceptance ----


@pytest.mark.parametrize("values", [{}, chart.EVERYTHING], ids=["defaults", "everything"])
@pytest.mark.parametrize("watched", [False, True], ids=["all namespaces", "one namespace"])
def test_every_object_is_accepted(restricted, tmp_path, values, watched):
    names = {"watchNamespaces": [restricted.name]} if watched else {}
    rendered = render(restricted, tmp_path, {**values, **names})
    restricted.apply(*rendered.all("ServiceAccount"))  # a pod is refused without its account
    known = [each for each in rendered.objects if each["kind"] not in PROMETHEUS]

    told = dry_run(restricted, known)

    assert len(told.splitlines()) == len(known) > 15


def test_pods_of_the_chart_are_admitted_under_the_restricted_standard(restricted, tmp_path):
    rendered = render(restricted, tmp_path, {})
    restricted.apply(*rendered.all("ServiceAccount"))

    told = dry_run(restricted, list(pods_of(rendered)))

    assert len(told.splitlines()) == 2


def test_the_search_of_helm_test_is_accepted(namespace, tmp_path):
    rendered = render(namespace, tmp_path, {})
    search = yaml.safe_load(rendered.one("ConfigMap", f"{ACCOUNT}-test")["data"]["search.yaml"])

    assert "kernelsearch.dev/smoke-test" in dry_run(namespace, [search])


# ---- a release ----


@pytest.fixture
def release(namespace):
    """Installed, upgraded and removed by helm itself; hooks are pods, and there is no node for them."""

    def helm(verb, *arguments):
        if verb != "uninstall":
            arguments = (str(chart.FOLDER), "--take-ownership", *arguments)  # this tier's definitions are there already
        return system.helm(namespace.cluster, verb, "kernelsearch", "-n", namespace.name, *arguments)

    yield helm
    helm("uninstall", "--no-hooks", "--ignore-not-found")


KINDS = "serviceaccount,configmap,service,deployment,clusterrole,clusterrolebinding,customresourcedefinition"


def written(namespace):
    """The objects of the release, and of each a number that grows when it is written."""
    found = {}
    text = namespace.kubectl("get", KINDS, "-l", "app.kubernetes.io/name=kernelsearch", "-o", "json")
    for each in json.loads(text)["items"]:
        metadata = each["metadata"]
        if (metadata.get("annotations") or {}).get("meta.helm.sh/release-namespace") == namespace.name:
            # A Deployment's status is written by its controller at any time.
            times = metadata["generation"] if each["kind"] == "Deployment" else metadata["resourceVersion"]
            found[each["kind"], metadata["name"]] = (metadata["uid"], times)
    return found


@pytest.mark.needs("own_cluster")  # a second operator would start there
def test_an_upgrade_to_the_same_changes_nothing(namespace, release):
    release("install")
    before = written(namespace)

    release("upgrade")
    release("upgrade")

    assert written(namespace) == before
    assert len(before) > 10


@pytest.mark.needs("own_cluster")  # a second operator would start there
def test_definitions_and_objects_stay_when_the_release_goes(namespace, release, root):
    release("install")
    namespace.apply(yaml.safe_load((root / "examples/quickstart.yaml").read_text()))
    before = namespace.get("ksearch", "quickstart")["metadata"]["uid"]

    release("uninstall", "--no-hooks")

    assert {kind for kind, _ in written(namespace)} == {"CustomResourceDefinition"}
    assert namespace.get("ksearch", "quickstart")["metadata"]["uid"] == before


@pytest.mark.needs("own_cluster")  # another may have them
@pytest.mark.parametrize("part", ["serviceMonitor", "podMonitor", "rules"])
def test_monitors_without_their_definitions_are_refused_and_nothing_is_installed(namespace, release, part):
    with pytest.raises(AssertionError, match=r"no matches for kind .* in version .monitoring\.coreos\.com/v1"):
        release("install", "--set", f"metrics.{part}.enabled=true")

    assert written(namespace) == {}


# ---- rights ----

OURS = tuple((cluster.OURS, plural) for plural in handlers.OURS.values())
DONE = {
    *((*each, verb) for each in OURS for verb in ("get", "list", "watch", "patch", "delete")),
    *((group, f"{plural}/status", "patch") for group, plural in OURS),
    *((cluster.OURS, plural, "create") for plural in ("modelservers", "verifierpools")),
    *((*each, verb) for each in handlers.CHILDREN for verb in ("get", "list", "watch", "create", "patch", "delete")),
    ("", "configmaps", "update"),
    ("", "events", "create"),
}
"""Group, resource, verb of everything that the operator does in a namespace, or grants to a runner."""
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
NEVER = {
    *(("", "secrets", verb) for verb in VERBS),
    *((group, resource, "*") for group, resource, _ in DONE),
    ("", "serviceaccounts/token", "create"),
    ("", "serviceaccounts", "impersonate"),
    ("", "pods/exec", "create"),
    ("", "pods/log", "get"),
    ("", "nodes", "list"),
    (cluster.OURS, "kernelsearches", "create"),
    ("rbac.authorization.k8s.io", "roles", "escalate"),
    ("rbac.authorization.k8s.io", "roles", "bind"),
    ("rbac.authorization.k8s.io", "clusterroles", "create"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "patch"),
}


def allowed(namespace, asked, where):
    """Those of `asked` that the API server lets the operator's account do."""
    reviews = []
    for group, resource, verb in sorted(asked):
        plural, _, sub = resource.partition("/")
        attributes = {"group": group, "resource": plural, "subresource": sub, "verb": verb, "namespace": where}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        reviews.append({**review, "spec": {"resourceAttributes": attributes}})
    stdin = "\n---\n".join(map(json.dumps, reviews))
    account = f"--as=system:serviceaccount:{namespace.name}:{ACCOUNT}"
    told = namespace.cluster.kubectl(
        "create", "--validate=false", account, "-f", "-", "-o", 'jsonpath={.status.allowed}{"\\n"}', stdin=stdin
    )
    answers = told.split()
    assert len(answers) == len(reviews)
    return {each for each, answer in zip(sorted(asked), answers, strict=True) if answer == "true"}


@pytest.fixture(params=[False, True], ids=["all namespaces", "one namespace"])
def watched(request, namespace, tmp_path):
    """The namespace under the operator's account; whether the rights end with it."""
    rendered = render(namespace, tmp_path, {"watchNamespaces": [namespace.name]} if request.param else {})
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    rights = [each for kind in kinds for each in rendered.all(kind, **{"app.kubernetes.io/component": "operator"})]
    namespace.apply(*rights)
    yield request.param
    stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": rights})
    namespace.kubectl("delete", "-f", "-", stdin=stdin)


def test_the_operator_may_do_what_it_does_and_nothing_with_secrets(namespace, watched):
    deadline = time.monotonic() + 10  # the authorizer hears of new roles a moment later
    while missing := DONE - allowed(namespace, DONE, namespace.name):
        assert time.monotonic() < deadline, missing
        time.sleep(0.2)

    assert allowed(namespace, NEVER, namespace.name) == set()
    assert allowed(namespace, DONE, "default") == (set() if watched else DONE)
