"""The generated CRD is what a Kubernetes API server takes, by the rules for structural schemas."""

import re
from collections.abc import Iterator
from typing import ClassVar

import pytest
import yaml
from pydantic import Field

from kernelsearch.api import crd
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.part import Part
from kernelsearch.cli import definitions

DEFINITION = crd.definition(KernelSearch)
ROOT = crd.root(KernelSearch)


def nodes(node: dict = ROOT, path: str = "") -> Iterator[tuple[str, dict]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in node:
            yield from nodes(node[name], f"{path}.{name}")


def at(path: str) -> dict:
    return dict(nodes())[path]


def test_the_committed_file_is_current(root):
    assert definitions.stale(root / "crds") == [], "run `kernelsearch crd`"


def test_a_file_is_small_enough_for_a_plain_kubectl_apply():
    assert all(len(text.encode()) < 100_000 for text in definitions.files().values())


def test_the_file_reads_back_as_the_definition():
    assert yaml.safe_load(definitions.files()["kernelsearches.yaml"]) == DEFINITION


def test_names_do_not_break_kubectl_get():
    names = DEFINITION["spec"]["names"]

    assert (names["plural"], names["singular"], names["shortNames"]) == ("kernelsearches", "kernelsearch", ["ksearch"])
    assert not {names["plural"], names["singular"], *names["shortNames"]} & set(names["categories"])
    assert DEFINITION["metadata"]["name"] == f"{names['plural']}.{DEFINITION['spec']['group']}"


def test_a_node_has_one_type_and_only_what_is_structural():
    for path, node in nodes():
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "uniqueItems"} & node.keys(), path


def test_texts_lists_and_numbers_are_bounded():
    bounds = {"string": {"maxLength", "enum"}, "array": {"maxItems"}, "integer": {"maximum"}}
    free = {path for path, node in nodes() if node["type"] in bounds and not bounds[node["type"]] & node.keys()}

    assert free == {".apiVersion", ".kind"}


def test_a_field_is_described_on_one_line():
    free = {"apiVersion", "kind", "metadata", "items", "additionalProperties"}

    for path, node in nodes():
        if path.rpartition(".")[2] in free:
            continue
        assert node.get("description"), path
        assert "\n" not in node["description"], path


def test_maps_are_bounded():
    assert all("maxProperties" in node for _, node in nodes() if "additionalProperties" in node)


def test_an_object_is_either_fields_or_a_map():
    assert not [path for path, node in nodes() if {"properties", "additionalProperties"} <= node.keys()]


def test_patterns_are_anchored_and_plain_enough_for_go():
    patterns = [node["pattern"] for _, node in nodes() if "pattern" in node]

    assert patterns
    assert all(each.startswith("^") and each.endswith("$") and "(?" not in each for each in patterns)


def test_defaults_of_objects_are_left_to_their_fields():
    assert at(".spec.budget")["default"] == {}
    assert at(".spec.budget.deadlineSeconds")["default"] == 900


def test_every_optional_field_has_a_default_or_is_absent_for_a_reason():
    spec = at(".spec")
    undefaulted = {name for name, node in spec["properties"].items() if "default" not in node}

    assert undefaulted - set(spec["required"]) == {"archive", "ttlSecondsAfterFinished"}


def test_the_status_has_no_defaults_that_would_be_written_on_creation():
    assert "default" not in at(".status")
    assert not [
        name for name, node in at(".status")["properties"].items() if "default" in node and name != "conditions"
    ]


def test_required_fields_have_no_default():
    for _, node in nodes():
        for name in node.get("required", ()):
            assert "default" not in node["properties"][name]


def test_exclusive_choices_are_rules_at_their_field():
    (rule,) = at(".spec.verifiers")["x-kubernetes-validations"]

    assert rule["rule"] == "[has(self.poolRef), has(self.serve)].filter(given, given).size() == 1"
    assert rule["message"] == "write exactly one of poolRef, serve"


def test_only_the_name_rule_and_rules_about_transitions_stand_at_the_root():
    rule, *others = ROOT["x-kubernetes-validations"]

    assert all("oldSelf" in each["rule"] for each in others)

    assert rule["rule"].startswith("self.metadata.name.size() <= 40")


def test_an_immutable_field_always_has_a_value():
    node = at(".spec.managedBy")

    assert node["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
    assert node["default"] == ""


def test_conditions_are_a_map_by_type():
    node = at(".status.conditions")

    assert (node["x-kubernetes-list-type"], node["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert "type" in node["items"]["required"]


def test_columns_point_at_fields():
    paths = {path for path, _ in nodes()}
    columns = DEFINITION["spec"]["versions"][0]["additionalPrinterColumns"]

    for column in columns:
        plain = re.sub(r"\[\?\(.*?\)\]", ".items", column["jsonPath"])
        assert plain in paths or plain == ".metadata.creationTimestamp"


def test_the_deadline_column_is_a_text():
    columns = {
        column["name"]: column["type"] for column in DEFINITION["spec"]["versions"][0]["additionalPrinterColumns"]
    }

    assert columns["Deadline"] == "string"


def test_metadata_is_left_to_the_server():
    assert ROOT["properties"]["metadata"] == {"type": "object"}


class Choice(Part):
    either: int | str = Field(description="d")


class Above(Part):
    number: int = Field(gt=0, description="d")


class Ruled(Part):
    one_of: ClassVar = ("a", "b")

    a: bool | None = Field(default=None, description="d")
    b: bool | None = Field(default=None, description="d")


def structural(kind: type[Part]) -> dict:
    schema = kind.model_json_schema()
    return crd.structural(schema, schema.get("$defs", {}), "here")


def test_a_choice_between_types_is_refused():
    with pytest.raises(crd.NotStructuralError, match="between 2 types"):
        structural(Choice)


def test_what_openapi_of_kubernetes_writes_otherwise_is_refused_with_its_path():
    with pytest.raises(crd.NotStructuralError, match=r"here\.number: exclusiveMinimum"):
        structural(Above)


def test_a_field_that_may_be_absent_is_no_choice():
    schema = structural(Ruled)

    assert schema["properties"]["a"] == {"type": "boolean", "description": "d"}
    assert len(schema["x-kubernetes-validations"]) == 1


def test_stale_and_missing_files_are_told(tmp_path):
    assert definitions.stale(tmp_path) == [tmp_path / name for name in definitions.files()]

    definitions.write(tmp_path)
    assert definitions.stale(tmp_path) == []

    (tmp_path / "kernelsearches.yaml").write_text("old")
    assert definitions.stale(tmp_path) == [tmp_path / "kernelsearches.yaml"]
