"""The test cluster's own enforcer of NetworkPolicy: what it reads, and what it writes."""

import pytest

from cluster.policies import Rules, matches


def pod(name, address, **labels):
    metadata = {"name": name, "namespace": "ns", "labels": labels}
    containers = [{"ports": [{"name": "http", "containerPort": 8000}]}]
    return {"metadata": metadata, "spec": {"containers": containers}, "status": {"podIP": address, "phase": "Running"}}


def policy(selector, **spec):
    types = [kind.capitalize() for kind in ("ingress", "egress") if kind in spec]
    return {"metadata": {"namespace": "ns"}, "spec": {"podSelector": selector, "policyTypes": types, **spec}}


def table(*policies):
    pods = [pod("a", "10.0.0.1", app="a"), pod("b", "10.0.0.2", app="b"), pod("c", "10.0.0.3")]
    return Rules(policies, pods, [{"metadata": {"name": "ns", "labels": {"team": "x"}}}]).table()


FROM_B = policy(
    {"matchLabels": {"app": "a"}},
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": "http"}]}],
    egress=[
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]},
        {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]},
    ],
)


def test_a_policy_becomes_rules_for_the_pods_that_it_selects():
    text = table(FROM_B)

    assert "ip saddr 10.0.0.2 tcp dport 8000 return" in text
    assert "ip daddr 0.0.0.0/0 ip daddr != { 10.0.0.0/8 } tcp dport 443 return" in text
    assert "ip daddr 10.0.0.3 udp dport 53 return" in text
    assert "vmap { 10.0.0.1 : jump ingress_10_0_0_1 }" in text


def test_no_egress_at_all_drops_everything():
    text = table(policy({}, egress=[]))

    assert text.count("counter drop") == 3
    assert "return" not in text


def test_without_policies_nothing_is_dropped():
    assert "drop" not in table()


@pytest.mark.parametrize(
    ("operator", "values", "found"),
    [("In", ["1"], True), ("NotIn", ["1"], False), ("Exists", None, True), ("DoesNotExist", None, False)],
)
def test_expressions(operator, values, found):
    assert matches({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}, {"k": "1"}) is found
