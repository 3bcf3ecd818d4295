"""What the operator was installed with. The environment is read here and nowhere else.

The chart writes both files from its values: `presets` name ways to serve a model, `policy` holds the floors that an
object's author cannot lower.
"""

import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from kernelsearch.controller.manifest import Manifest

Host = Annotated[str, AfterValidator(str.lower)]
"""Case means nothing in it."""


class SettingsError(Exception):
    """The installation is unusable: the message names the variable or field, and what to write instead."""


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


def _cidr(text: str) -> str:
    ip_network(text, strict=False)
    return text


def _proxy_url(text: str) -> str:
    """Empty, or what a rule can be made of."""
    at = urlsplit(text)
    if text and (at.scheme not in {"http", "https"} or not at.hostname or at.port == 0):
        raise ValueError(f"{text} is no proxy's URL; write http://HOST:PORT")
    return text


Cidr = Annotated[str, AfterValidator(_cidr)]
Port = Annotated[int, Field(ge=1, le=65535)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]


class Proxy(_Values):
    """What stands between runners or model servers and the outside; the chart puts the same into their environment."""

    http: ProxyUrl = ""
    """For addresses without TLS. Empty: none."""
    https: ProxyUrl = ""
    """For addresses with TLS. Empty: none."""
    no_proxy: str = ""
    """Hosts that are reached directly, comma separated."""


class NetworkPolicies(_Values):
    """What may be reached from where."""

    enabled: bool = True
    api_server_cidrs: tuple[Cidr, ...] = Field(("0.0.0.0/0",), alias="apiServerCIDRs")
    """Where the API server's endpoints are; ports are matched after address translation, so a Service's address does
    not help."""
    api_server_ports: tuple[Port, ...] = (443, 6443)
    external_cidrs: tuple[Cidr, ...] = Field(("0.0.0.0/0",), alias="externalCIDRs")
    """Where endpoints, sources and archives outside the cluster are."""
    external_except: tuple[Cidr, ...] = (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10"),
    )
    """Private and link-local ranges, where clouds keep their metadata and credentials."""
    external_ports: tuple[Port, ...] = (443,)
    """Theirs, after address translation."""
    proxy: Proxy = Proxy()
    scrape_from: tuple[Manifest, ...] = ()
    """NetworkPolicy peers that may read metrics."""
    dns_from: tuple[Manifest, ...] = (
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    )
    """NetworkPolicy peers that answer DNS: the cluster's pods, and the address of NodeLocal DNSCache."""
    dns_ports: tuple[Port, ...] = (53,)
    """Theirs, after address translation."""


class PodDefaults(_Values):
    """What every pod of one role gets."""

    resources: Manifest = {}
    extra_volumes: tuple[Manifest, ...] = ()
    extra_volume_mounts: tuple[Manifest, ...] = ()
    env: tuple[Manifest, ...] = ()


class RunnerDefaults(PodDefaults):
    """And where runners stand: a search has a pod template for its model and its verifiers, and none for them."""

    node_selector: Manifest = {}
    tolerations: tuple[Manifest, ...] = ()
    affinity: Manifest = {}
    priority_class_name: str = ""

    def placement(self) -> Manifest:
        """Fields of a pod's spec; what is empty is left to the cluster."""
        fields = {"node_selector", "tolerations", "affinity", "priority_class_name"}
        placed = self.model_dump(by_alias=True, include=fields, mode="json")
        return {name: value for name, value in placed.items() if value}


class ModelDefaults(PodDefaults):
    """What every pod of a model gets."""

    scratch: str = "100Gi"
    """Most that /tmp may hold: engines download weights there when no claim holds them."""


def _resources(cpu: str, memory: str) -> Manifest:
    """Requests and limits alike: a CPU quota below the request spoils timing, memory beyond it kills strangers."""
    amounts = {"cpu": cpu, "memory": memory}
    return {"requests": amounts, "limits": amounts}


class Policy(_Values):
    """The floors of this installation."""

    allowed_images: tuple[str, ...] = ()
    """Prefixes of images that an object may name. Empty: any."""
    allowed_endpoint_hosts: tuple[Host, ...] = ()
    """Hosts that an endpoint may be on; `*.example.com` covers subdomains. Empty: any."""
    allow_custom_engine: bool = True
    """Whether a ModelServer may say more about its engine than the name of a preset."""
    require_runtime_class: str = ""
    """RuntimeClass of verifier pods, such as gVisor's, that an object cannot replace. Empty: none required."""
    max_replicas: Annotated[int, Field(ge=1)] = 64
    network_policy: NetworkPolicies = NetworkPolicies()
    runner: RunnerDefaults = RunnerDefaults(resources=_resources("250m", "512Mi"))
    verifier: PodDefaults = PodDefaults(resources=_resources("4", "16Gi"))
    model: ModelDefaults = ModelDefaults()
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"


class Settings(_Values):
    """Everything from the environment."""

    operator_image: str
    """Runs runners and the replay model."""
    verifier_image: str
    namespaces: tuple[str, ...] = ()
    """Watched ones. Empty: all, which needs a ClusterRole."""
    namespace: str = "default"
    """The operator's own."""
    presets: Mapping[str, Manifest] = {}
    """Ways to serve a model, by name: parts of a ModelServer's spec."""
    policy: Policy = Policy()
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Of `/healthz` and `/metrics`; 0 takes a free one."""


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings. Raises SettingsError."""
    try:
        return Settings(
            operator_image=_required(environment, "KERNELSEARCH_OPERATOR_IMAGE"),
            verifier_image=_required(environment, "KERNELSEARCH_VERIFIER_IMAGE"),
            namespaces=tuple(filter(None, environment.get("KERNELSEARCH_WATCH_NAMESPACES", "").split(","))),
            namespace=environment.get("POD_NAMESPACE", "default"),
            presets=_file(environment, "KERNELSEARCH_PRESETS_FILE"),
            policy=Policy(**_file(environment, "KERNELSEARCH_POLICY_FILE")),
            port=environment.get("KERNELSEARCH_PORT", "8080"),
        )
    except ValidationError as error:
        raise SettingsError(_words(error)) from error


def _words(error: ValidationError) -> str:
    """A line a fault: the field as the chart's values name it, what it is, what is wrong with it."""
    faults = error.errors(include_url=False)
    lines = (f"{'.'.join(map(str, each['loc']))} is {each['input']!r:.200}: {each['msg']}" for each in faults)
    return "\n".join(("the settings are unusable; mend these values of the chart:", *lines))


def _required(environment: Mapping[str, str], name: str) -> str:
    if value := environment.get(name):
        return value
    raise SettingsError(f"{name} is not set; give the image's name, as the chart does")


def _file(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    path = environment.get(name)
    if not path:
        return {}
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error}") from error
    if not isinstance(read or {}, dict):
        raise SettingsError(f"{name}: {path} holds no object")
    return read or {}
