"""Who may speak with whom. Enforced by the cluster's network plugin, where it enforces anything.

| pod | ingress | egress |
| --- | --- | --- |
| runner | metrics from `scrapeFrom` | DNS, API server, its model, its verifiers, the outside where its spec needs it |
| verifier | evaluations from runners, metrics from `scrapeFrom` | nothing, not even DNS |
| model | API from runners, metrics from `scrapeFrom`, pods of the same server | DNS and outside with a hub token only |

Runners are those of the owner's namespace and of its `allowedNamespaces`: an engine asks nobody for a token, so that
this is the only thing that keeps the others from a model. The outside is `externalPorts` of `externalCIDRs`, and the
proxy. Ports are matched after address translation: a pod's own, never a Service's.
"""

from collections.abc import Sequence

from kernelsearch.controller.builders import names, reach
from kernelsearch.controller.manifest import Manifest
from kernelsearch.controller.settings import NetworkPolicies

RUNNERS: Manifest = {"matchLabels": {**names.MANAGED_BY, names.COMPONENT: names.RUNNER}}


def runner(owner: Manifest, policies: NetworkPolicies, *, outside: bool) -> Manifest:
    """`outside`: the spec names an endpoint, a source or an archive that may be anywhere."""
    egress = [
        _dns(policies),
        {
            "to": [{"ipBlock": {"cidr": cidr}} for cidr in policies.api_server_cidrs],
            "ports": [_port(port) for port in policies.api_server_ports],
        },
        {"to": [_anywhere(names.MODEL)]},  # an engine's port is its own; the model's ingress opens no other
        _rule("to", [_anywhere(names.VERIFIER)], names.VERIFIER_PORT),
    ]
    if outside:
        egress += _outside(policies)
    ingress = _scrape(policies, names.METRICS_PORT)
    return _policy(owner, names.runner(owner["metadata"]["name"]), names.RUNNER, ingress, egress)


def verifier(owner: Manifest, policies: NetworkPolicies) -> Manifest:
    """No egress at all: a candidate that leaves its sandbox still reaches nobody."""
    ingress = [_rule("from", [_runners(owner)], names.VERIFIER_PORT), *_scrape(policies, names.VERIFIER_PORT)]
    return _policy(owner, names.verifier(owner["metadata"]["name"]), names.VERIFIER, ingress, [])


def model(owner: Manifest, policies: NetworkPolicies, port: int, *, downloads: bool) -> Manifest:
    """`downloads`: the weights come from a hub.

    Not to be scraped: an engine's metrics come from the port at which it answers whoever asks.
    """
    peers = [{"podSelector": {"matchLabels": names.selector(owner, names.MODEL)}}]
    ingress = [_rule("from", [_runners(owner)], port), {"from": peers}]
    egress: list[Manifest] = [{"to": peers}]
    if downloads:
        egress += [_dns(policies), *_outside(policies)]
    return _policy(owner, names.model(owner["metadata"]["name"]), names.MODEL, ingress, egress)


def _policy(
    owner: Manifest, name: str, component: str, ingress: Sequence[Manifest], egress: Sequence[Manifest]
) -> Manifest:
    return names.child(
        owner,
        "NetworkPolicy",
        name,
        component,
        spec={
            "podSelector": {"matchLabels": names.selector(owner, component)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": list(ingress),
            "egress": list(egress),
        },
    )


def _anywhere(component: str) -> Manifest:
    """Pods of ours in any namespace: a shared model or pool may lie in another one."""
    labels = {**names.MANAGED_BY, names.COMPONENT: component}
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}


def _runners(owner: Manifest) -> Manifest:
    """Those that the owner admits; the API server gives each namespace its name as a label, which nobody can forge."""
    admitted = [owner["metadata"]["namespace"], *owner["spec"].get("allowedNamespaces", ())]
    by_name = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": admitted}
    return {"namespaceSelector": {"matchExpressions": [by_name]}, "podSelector": RUNNERS}


def _scrape(policies: NetworkPolicies, port: int) -> list[Manifest]:
    return [_rule("from", policies.scrape_from, port)] if policies.scrape_from else []


def _dns(policies: NetworkPolicies) -> Manifest:
    ports = [_port(port, protocol) for port in policies.dns_ports for protocol in ("UDP", "TCP")]
    return {"to": list(policies.dns_from), "ports": ports}


def _outside(policies: NetworkPolicies) -> list[Manifest]:
    blocks = [{"ipBlock": _block(cidr, policies.external_except)} for cidr in policies.external_cidrs]
    direct = {"to": blocks, "ports": [_port(port) for port in policies.external_ports]}
    return [direct, *map(_through, reach.proxies(policies.proxy))]


def _through(proxy: reach.Place) -> Manifest:
    """A policy knows no names: where the proxy has one, its port is open everywhere but among link-local addresses."""
    if address := proxy.address:
        return _rule("to", [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}], proxy.port)
    anywhere = {"0.0.0.0/0": ["169.254.0.0/16"], "::/0": ["fe80::/10"]}
    return _rule("to", [{"ipBlock": {"cidr": cidr, "except": but}} for cidr, but in anywhere.items()], proxy.port)


def _block(cidr: str, without: Sequence[str]) -> Manifest:
    inside = reach.exceptions(cidr, without)
    return {"cidr": cidr, "except": inside} if inside else {"cidr": cidr}


def _rule(side: str, peers: Sequence[Manifest], port: int, protocol: str = "TCP") -> Manifest:
    return {side: list(peers), "ports": [_port(port, protocol)]}


def _port(port: int, protocol: str = "TCP") -> Manifest:
    return {"port": port, "protocol": protocol}
