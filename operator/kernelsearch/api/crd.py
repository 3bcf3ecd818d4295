"""Turns the models into CustomResourceDefinitions with structural schemas.

pydantic's JSON schema says more than the API server takes (`$ref`, `anyOf` with null, titles), so each node is reduced
to what a structural schema may hold; anything that is left over is an error here, not in a cluster.
"""

from collections.abc import Mapping
from typing import Any

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.model_server import ModelServer
from kernelsearch.api.resource import GROUP, VERSION, Resource
from kernelsearch.api.verifier_pool import VerifierPool

KINDS: tuple[type[Resource], ...] = (KernelSearch, ModelServer, VerifierPool)
CATEGORY = "kernelsearch-all"
"""For `kubectl get kernelsearch-all`. Never equal to a singular or plural, which would break `kubectl get` by name."""

KEPT = frozenset(
    {
        *(
            "type",
            "description",
            "default",
            "enum",
            "format",
            "pattern",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
        ),
        *("minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items"),
        *("additionalProperties", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
        "x-kubernetes-preserve-unknown-fields",
    }
)
"""What a structural schema may hold, as far as our models use it."""

THE_SERVERS_OWN: dict[str, dict[str, Any]] = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object"},
}
"""Fields of the root that the API server checks itself; of `metadata` it bears no word more, not even a description."""

Schema = dict[str, Any]


class NotStructuralError(ValueError):
    """A model says something that the API server does not take. The message names the path."""


def definitions() -> dict[str, dict[str, Any]]:
    """Every CRD, by the name of its file."""
    return {f"{kind.plural}.yaml": definition(kind) for kind in KINDS}


def definition(kind: type[Resource]) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    singular = kind.__name__.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": list(kind.short_names),
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": root(kind)},
                }
            ],
        },
    }


def root(kind: type[Resource]) -> Schema:
    """The whole schema of a kind."""
    generated = kind.model_json_schema(by_alias=True)
    whole = {**generated, "properties": {**generated["properties"], **THE_SERVERS_OWN}, "required": ["spec"]}
    return structural(whole, generated["$defs"], kind.__name__)


def structural(node: Mapping[str, Any], defs: Mapping[str, Schema], path: str) -> Schema:
    """This node as a structural schema may say it. Raises NotStructuralError."""
    merged = _without_reference(node, defs)
    schema = {key: value for key, value in merged.items() if key in KEPT}
    if left := merged.keys() - KEPT - {"title", "const", "$defs"}:
        raise NotStructuralError(f"{path}: {', '.join(sorted(left))} cannot stand in a structural schema")
    if "type" not in schema:
        raise NotStructuralError(f"{path}: a structural schema needs exactly one type here")
    _tidy(schema, merged)
    for name in ("items", "additionalProperties"):
        if name in schema:
            schema[name] = structural(schema[name], defs, f"{path}.{name}")
    if "properties" in schema:
        schema["properties"] = {
            name: structural(child, defs, f"{path}.{name}") for name, child in schema["properties"].items()
        }
    return {key: schema[key] for key in sorted(schema, key=_order)}


def _without_reference(node: Mapping[str, Any], defs: Mapping[str, Schema]) -> Schema:
    """The node itself, where it refers to another one or says "this or null": absence is the CRD's null."""
    merged = dict(node)
    while True:
        if "$ref" in merged:
            target = defs[merged.pop("$ref").rpartition("/")[2]]
            merged = {**target, **merged}
        elif "anyOf" in merged:
            choices = [each for each in merged.pop("anyOf") if each.get("type") != "null"]
            if len(choices) != 1:
                raise NotStructuralError(f"{merged.get('title', '?')}: a choice between {len(choices)} types")
            merged = {**choices[0], **merged}
        else:
            return merged


def _tidy(schema: Schema, merged: Mapping[str, Any]) -> None:
    if "const" in merged:
        schema["enum"] = [merged["const"]]
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if isinstance(
        schema.get("additionalProperties"), bool
    ):  # closed by itself; or open, which the schema says elsewhere
        del schema["additionalProperties"]
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    if "default" in schema and schema["type"] == "object":
        # The API server fills in the defaults of the fields; a copy of them here could only get out of step.
        schema["default"] = {}


def _order(key: str) -> tuple[int, str]:
    first = ("description", "type", "format", "default")
    last = ("required", "properties", "items", "additionalProperties")
    if key in first:
        return first.index(key), key
    return (50 + last.index(key), key) if key in last else (10, key)
