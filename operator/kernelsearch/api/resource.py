"""What every kind has: group and version, a name, columns, and how it is called on the command line."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ConfigDict

from kernelsearch.api.part import NAME, Name, Part, Rule

GROUP = "kernelsearch.dev"
VERSION = "v1alpha1"

NAME_RULE = Rule(
    f"self.metadata.name.size() <= 40 && self.metadata.name.matches('{NAME}')",
    "metadata.name: at most 40 lower case letters, digits and '-', beginning with a letter",
)
"""At the root of every kind. Other rules stand at their fields: a rule here is evaluated on every write of status, and
one that is tightened later would block those of stored objects."""


class Metadata(Part):
    """The part of Kubernetes' object metadata that matters here; the rest is taken as it comes."""

    model_config = ConfigDict(extra="allow")

    name: Name
    """Name of the object. At most 40 characters: children get suffixes, and a dot is refused in a Service's name."""


class Resource(Part):
    """Base of the kinds."""

    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)
    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[dict[str, Any], ...]]

    @classmethod
    def stored(cls, body: Mapping[str, Any]) -> Self:
        """The object as an API server holds it, without its status. Raises ValueError with the faults.

        What the server admitted is no slip of the author's: a field that is unknown here comes from a newer schema,
        which fills in its default in every object, and an older program goes on without it.
        """
        parts = {name: body[name] for name in ("apiVersion", "kind", "spec")}
        text = json.dumps({**parts, "metadata": {"name": body["metadata"]["name"]}})
        return cls.model_validate_json(text, extra="ignore")


def column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    """A column of `kubectl get`; `wide` ones are shown with `-o wide` only."""
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def condition(kind: str, part: str = "status") -> str:
    """JSON path of one condition."""
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


AGE = column("Age", ".metadata.creationTimestamp", "date")
