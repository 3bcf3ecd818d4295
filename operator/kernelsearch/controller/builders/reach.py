"""Whether an address outside can be reached at all through the policies that `network` makes, and what to do if not.

Asked before a search is accepted: a closed port looks like a model that is down, until the start-up deadline an hour
later.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from kernelsearch.controller.settings import NetworkPolicies, Proxy

PORTS = {"http": 80, "https": 443}
IN_CLUSTER = (".svc", ".cluster.local")


@dataclass(frozen=True)
class Place:
    """A host, by name or address, and its port."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Place":
        """Raises ValueError when its port is none."""
        at = urlsplit(url)
        return cls(at.hostname or "", at.port or PORTS[at.scheme])

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        try:
            return ip_address(self.host)
        except ValueError:
            return None


def proxies(proxy: Proxy) -> list[Place]:
    """Each once."""
    return list(dict.fromkeys(Place.of(url) for url in (proxy.http, proxy.https) if url))


def faults(url: str, policies: NetworkPolicies, field: str) -> Iterator[str]:
    """Why no packet would arrive there, each with its remedy."""
    try:
        place = Place.of(url)
    except ValueError as error:
        yield f"{field}: {url} has no usable port: {error}"
        return
    if not policies.enabled or _proxied(url, place, policies.proxy):
        return
    if place.port not in policies.external_ports:
        yield f"{field}: {_closed(place, policies)}"
    if (address := place.address) and not _open(address, policies):
        yield (
            f"{field}: {address} is in no range that this installation's NetworkPolicies open; have "
            f"{address}/{address.max_prefixlen} added to the chart's value networkPolicy.externalCIDRs"
        )


def _closed(place: Place, policies: NetworkPolicies) -> str:
    ports = ", ".join(map(str, policies.external_ports)) or "none"
    told = (
        f"port {place.port} of {place.host} is closed by this installation's NetworkPolicies, which open {ports}; have "
        f"{place.port} added to the chart's value networkPolicy.externalPorts"
    )
    if place.host.endswith(IN_CLUSTER):  # ports and addresses are matched after translation
        told += (
            " (the pod's own port, where its Service has another) and the range of its pods to "
            "networkPolicy.externalCIDRs, or let a ModelServer serve it, which needs neither"
        )
    return told


def _proxied(url: str, place: Place, proxy: Proxy) -> bool:
    """As HTTP clients read HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    through = proxy.https if urlsplit(url).scheme == "https" else proxy.http
    without = [each.strip().lstrip(".") for each in proxy.no_proxy.split(",") if each.strip()]
    direct = any(each in {"*", place.host} or place.host.endswith(f".{each}") for each in without)
    return bool(through) and not direct


def _open(address: IPv4Address | IPv6Address, policies: NetworkPolicies) -> bool:
    whole = ip_network(address)
    return any(
        _covers(cidr, whole) and not any(_covers(each, whole) for each in exceptions(cidr, policies.external_except))
        for cidr in policies.external_cidrs
    )


def exceptions(cidr: str, without: Iterable[str]) -> list[str]:
    """What lies inside it, as an IPBlock demands. A range that is given just so is meant."""
    return [each for each in without if each != cidr and _covers(cidr, _network(each))]


def _covers(cidr: str, part: IPv4Network | IPv6Network) -> bool:
    """Whether the whole of `part` lies in it."""
    whole = _network(cidr)
    if isinstance(whole, IPv4Network):
        return isinstance(part, IPv4Network) and part.subnet_of(whole)
    return isinstance(part, IPv6Network) and part.subnet_of(whole)


def _network(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr, strict=False)
