"""Enforces NetworkPolicy on one node with routed pods (CNI `ptp`): the policies become one nftables table.

    python -m cluster.policies API_URL PKI_FOLDER         inside the cluster's network namespace

No product that does this builds from Go modules alone, so this is our reading of the API: pod and namespace selectors,
ipBlock, named and ranged ports, IPv4, one node. Pod to pod passes the forward hook, after kube-proxy's translation; pod
to node (the API server) passes input; node to pod (the kubelet's probes) passes neither, as Kubernetes wants.
"""

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]
SIDES = {"ingress": ("from", "saddr"), "egress": ("to", "daddr")}
TABLE = """\
add table ip policies
delete table ip policies
table ip policies {{
{chains}
  chain leaving {{
    {leaving}
  }}
  chain arriving {{
    {arriving}
  }}
  chain forward {{
    type filter hook forward priority 10; policy accept;
    ct state established,related accept
    jump leaving
    jump arriving
  }}
  chain input {{
    type filter hook input priority 10; policy accept;
    ct state established,related accept
    iifname "lo" accept
    jump leaving
  }}
}}
"""


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """A label selector."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(each, labels) for each in selector.get("matchExpressions") or ())


def _expression(each: Object, labels: Mapping[str, str]) -> bool:
    key, values = each["key"], each.get("values") or ()
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[each["operator"]]


class Rules:
    """The table for what exists now."""

    def __init__(self, policies: Sequence[Object], pods: Sequence[Object], namespaces: Sequence[Object]) -> None:
        self._policies = policies
        self._labels = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in namespaces}
        self._pods = [pod for pod in pods if _routed(pod)]

    def table(self) -> str:
        chains, jumps = [], {"ingress": [], "egress": []}
        for pod in self._pods:
            for direction in SIDES:
                policies = [each for each in self._policies if _selects(each, direction, pod)]
                if policies:
                    address = pod["status"]["podIP"]
                    name = f"{direction}_{address.replace('.', '_')}"
                    allowed = {rule for policy in policies for rule in self._allowed(policy, direction, pod)}
                    lines = "\n    ".join([*sorted(allowed), "counter drop"])
                    chains.append(f"  chain {name} {{\n    {lines}\n  }}")
                    jumps[direction].append(f"{address} : jump {name}")
        return TABLE.format(
            chains="\n".join(chains), leaving=_map("saddr", jumps["egress"]), arriving=_map("daddr", jumps["ingress"])
        )

    def _allowed(self, policy: Object, direction: str, pod: Object) -> Iterator[str]:
        peers_key, side = SIDES[direction]
        target = pod if direction == "ingress" else None
        for rule in policy["spec"].get(direction) or ():
            ports = rule.get("ports") or ()
            for peer in rule.get(peers_key) or (None,):
                if peer is None:
                    yield from (f"{port}return" for port in _ports(ports, target))
                elif "ipBlock" in peer:
                    yield from (f"{_block(side, peer['ipBlock'])}{port}return" for port in _ports(ports, target))
                else:
                    for other in self._chosen(peer, policy["metadata"]["namespace"]):
                        address = f"ip {side} {other['status']['podIP']} "
                        yield from (f"{address}{port}return" for port in _ports(ports, target or other))

    def _chosen(self, peer: Object, namespace: str) -> Iterator[Object]:
        for pod in self._pods:
            metadata = pod["metadata"]
            if "namespaceSelector" in peer:
                if not matches(peer["namespaceSelector"], self._labels.get(metadata["namespace"], {})):
                    continue
            elif metadata["namespace"] != namespace:
                continue
            if matches(peer.get("podSelector") or {}, metadata.get("labels") or {}):
                yield pod


def _routed(pod: Object) -> bool:
    alive = pod["status"].get("phase") in ("Pending", "Running")
    return bool(pod["status"].get("podIP")) and not pod["spec"].get("hostNetwork") and alive


def _selects(policy: Object, direction: str, pod: Object) -> bool:
    spec, metadata = policy["spec"], pod["metadata"]
    return (
        policy["metadata"]["namespace"] == metadata["namespace"]
        and direction.capitalize() in (spec.get("policyTypes") or ["Ingress"])
        and matches(spec.get("podSelector") or {}, metadata.get("labels") or {})
    )


def _map(side: str, jumps: list[str]) -> str:
    return f"ip {side} vmap {{ {', '.join(sorted(jumps))} }}" if jumps else ""


def _block(side: str, block: Object) -> str:
    without = block.get("except")
    return f"ip {side} {block['cidr']} " + (f"ip {side} != {{ {', '.join(without)} }} " if without else "")


def _ports(ports: Sequence[Object], pod: Object | None) -> list[str]:
    """Matches for the ports of one rule; named ones are those of `pod`."""
    if not ports:
        return [""]
    found = []
    for each in ports:
        protocol, port = each.get("protocol", "TCP"), each.get("port")
        number = port if isinstance(port, int) or port is None else _named(port, protocol, pod)
        if port is None:
            found.append(f"meta l4proto {protocol.lower()} ")
        elif number is not None:
            last = f"-{each['endPort']}" if each.get("endPort") else ""
            found.append(f"{protocol.lower()} dport {number}{last} ")
    return found


def _named(name: str, protocol: str, pod: Object | None) -> int | None:
    containers = pod["spec"]["containers"] if pod else ()
    ports = [each for container in containers for each in container.get("ports") or ()]
    wanted = (each for each in ports if each.get("name") == name and each.get("protocol", "TCP") == protocol)
    return next((int(each["containerPort"]) for each in wanted), None)


def main(url: str, pki: Path) -> None:
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def items(path: str) -> list[Object]:
        with urllib.request.urlopen(url + path, context=context, timeout=5) as answer:
            found: list[Object] = json.load(answer)["items"]
            return found

    last = ""
    while True:
        try:
            policies = items("/apis/networking.k8s.io/v1/networkpolicies")
            table = Rules(policies, items("/api/v1/pods?limit=5000"), items("/api/v1/namespaces")).table()
            if table != last:
                subprocess.run(["nft", "-f", "-"], input=table, text=True, check=True)
                last = table
        except Exception as error:  # noqa: BLE001 - the API server restarts in some tests; the last rules stay meanwhile
            print(time.strftime("%T"), repr(error), flush=True)  # noqa: T201 - its log
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
