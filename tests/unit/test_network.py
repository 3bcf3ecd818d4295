"""Who may speak with whom, and what is told of an endpoint that nobody can reach."""

import pytest

from cluster_objects import SETTINGS, read, search
from kernelsearch.controller.builders import network, reach
from kernelsearch.controller.plan import search as plans
from kernelsearch.controller.settings import NetworkPolicies

PLAIN = NetworkPolicies()


def owner(kind, **spec):
    metadata = {"name": "demo", "namespace": "models", "uid": "u1"}
    return {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def policies(**values):
    return NetworkPolicies.model_validate(values)


def outside(given):
    """Of a runner's egress, what leads out of the cluster: pairs of address range and port, and what is left out."""
    made = network.runner(owner("KernelSearch"), given, outside=True)["spec"]["egress"]
    inside = network.runner(owner("KernelSearch"), given, outside=False)["spec"]["egress"]
    found = {}
    for rule in made[len(inside) :]:
        for peer in rule["to"]:
            for port in rule["ports"]:
                found[peer["ipBlock"]["cidr"], port["port"]] = peer["ipBlock"].get("except", [])
    return found


# ---- ingress ----


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda body: network.model(body, PLAIN, 8000, downloads=False), "ModelServer"),
        (lambda body: network.verifier(body, PLAIN), "VerifierPool"),
    ],
)
@pytest.mark.parametrize(("spec", "admitted"), [({}, ["models"]), ({"allowedNamespaces": ["a"]}, ["models", "a"])])
def test_runners_of_admitted_namespaces_only_may_come_in(make, kind, spec, admitted):
    made = make(owner(kind, **spec))

    (peer,) = made["spec"]["ingress"][0]["from"]
    (wanted,) = peer["namespaceSelector"]["matchExpressions"]
    assert wanted == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": admitted}
    assert peer["podSelector"] == network.RUNNERS


def test_who_may_read_metrics_may_not_ask_models():
    """An engine asks nobody for a token, and its metrics are not ours."""
    given = policies(scrapeFrom=[{"namespaceSelector": {}}])

    models = network.model(owner("ModelServer"), given, 8000, downloads=False)["spec"]["ingress"]
    verifiers = network.verifier(owner("VerifierPool"), given)["spec"]["ingress"]

    assert {"namespaceSelector": {}} not in [peer for rule in models for peer in rule["from"]]
    assert {"namespaceSelector": {}} in [peer for rule in verifiers for peer in rule["from"]]


# ---- egress ----


def test_the_internet_is_open_but_for_private_ranges():
    private = [each for each in PLAIN.external_except if ":" not in each]

    assert outside(PLAIN) == {("0.0.0.0/0", 443): private}


def test_exceptions_are_left_out_of_every_range_that_holds_them_and_of_no_other():
    given = policies(externalCIDRs=["0.0.0.0/1", "::/0", "10.0.0.0/8", "192.168.7.0/24"], externalPorts=[443, 8443])

    found = outside(given)

    assert found["0.0.0.0/1", 8443] == ["10.0.0.0/8"]
    assert found["::/0", 443] == ["fc00::/7", "fe80::/10"]
    assert found["10.0.0.0/8", 443] == found["192.168.7.0/24", 443] == []


def test_the_proxy_is_open_by_its_address_and_port():
    found = outside(policies(proxy={"https": "http://user:word@10.1.2.3:3128", "http": "http://[fd00::1]"}))

    assert found["10.1.2.3/32", 3128] == found["fd00::1/128", 80] == []


def test_a_proxy_with_a_name_is_open_everywhere_but_where_clouds_keep_credentials():
    found = outside(policies(proxy={"https": "http://proxy.example.com:3128"}))

    assert found["0.0.0.0/0", 3128] == ["169.254.0.0/16"]


def test_dns_is_asked_at_its_own_port_and_at_the_nodes_cache():
    (rule, *_) = network.runner(owner("KernelSearch"), policies(dnsPorts=[5353]), outside=False)["spec"]["egress"]

    assert rule["ports"] == [{"port": 5353, "protocol": "UDP"}, {"port": 5353, "protocol": "TCP"}]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]


@pytest.mark.parametrize(
    "wrong", [{"externalCIDRs": ["300.0.0.0/8"]}, {"proxy": {"https": "proxy:3128"}}, {"proxy": {"http": "http://a:0"}}]
)
def test_what_no_rule_can_be_made_of_is_refused_at_the_start(wrong):
    with pytest.raises(ValueError, match=r"300\.0|no proxy"):
        policies(**wrong)


# ---- endpoints ----


def told(url, **values):
    return "; ".join(reach.faults(url, policies(**values), "f"))


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("https://api.example.com/v1", {}),
        ("https://api.example.com:8443/v1", {"externalPorts": [8443]}),
        ("https://8.8.8.8/v1", {}),
        ("https://10.1.2.3/v1", {"externalCIDRs": ["0.0.0.0/0", "10.1.2.3/32"]}),
        ("http://vllm.team.svc:8000/v1", {"enabled": False}),
        ("http://api.example.com:9000/v1", {"proxy": {"http": "http://10.0.0.1:3128"}}),
    ],
)
def test_what_is_open_is_not_refused(url, values):
    assert told(url, **values) == ""


@pytest.mark.parametrize(
    ("url", "values", "said"),
    [
        ("http://api.example.com/v1", {}, "have 80 added to the chart's value networkPolicy.externalPorts"),
        ("https://api.example.com:8443/v1", {}, "port 8443 of api.example.com is closed"),
        ("http://vllm.team.svc:8000/v1", {}, "or let a ModelServer serve it"),
        ("https://10.1.2.3/v1", {}, "10.1.2.3/32 added to the chart's value networkPolicy.externalCIDRs"),
        ("https://10.1.2.3/v1", {"externalCIDRs": ["11.0.0.0/8"]}, "is in no range"),
        ("https://[fd00::1]/v1", {"externalCIDRs": ["::/0"]}, "fd00::1/128 added"),
        ("http://vllm.team.svc:8000/v1", {"proxy": {"http": "http://10.0.0.1:1", "noProxy": ".svc"}}, "port 8000"),
        ("https://api.example.com:99999/v1", {}, "no usable port"),
    ],
)
def test_what_no_packet_reaches_is_told_with_the_remedy(url, values, said):
    assert said in told(url, **values)


def test_an_unreachable_endpoint_is_not_accepted():
    body = search(model={"name": "r1", "endpoint": {"url": "http://r1-model.models.svc:8000/v1"}})

    (fault,) = plans.faults(read(body), SETTINGS)

    assert fault.startswith("spec.model.endpoint.url: port 8000 of r1-model.models.svc is closed")
