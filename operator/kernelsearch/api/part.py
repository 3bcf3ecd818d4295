"""The ground under every custom resource's model: one base class, and the kinds of text that fields may hold.

Nothing is coerced, as the API server coerces nothing: `"8"` is no number and `0.6` no text. Fractions travel as text,
because a CRD has no floats. Everything is bounded, because the API server refuses rules over unbounded values.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Rule:
    """A rule that the API server enforces, in the Common Expression Language, at the object it speaks of."""

    expression: str
    message: str

    def as_schema(self) -> dict[str, str]:
        """As it stands in a CRD."""
        return {"rule": self.expression, "message": self.message}


class Part(BaseModel):
    """Base of everything in a manifest: frozen, strict, camelCase, and an unknown field is an error."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )

    one_of: ClassVar[tuple[str, ...]] = ()
    """Fields (as written in a manifest) of which exactly one must be there."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """Further rules of the API server; each has its twin in a validator of the class."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in self.one_of if getattr(self, _field_named(type(self), name)) is not None]
        if self.one_of and len(given) != 1:
            seen = "none is" if not given else " and ".join(given) + " are"
            raise ValueError(f"{seen} given; write exactly one of {', '.join(self.one_of)}")
        return self

    @classmethod
    def cel_rules(cls) -> tuple[Rule, ...]:
        """All rules of this object, the choice between its fields first."""
        return (*_choice(cls.one_of), *cls.rules)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if rules := cls.cel_rules():
            handler.resolve_ref_schema(schema)["x-kubernetes-validations"] = [rule.as_schema() for rule in rules]
        return schema


def _field_named(part: type[Part], alias: str) -> str:
    return next(name for name, field in part.model_fields.items() if field.alias == alias)


def _choice(fields: tuple[str, ...]) -> tuple[Rule, ...]:
    if not fields:
        return ()
    there = ", ".join(f"has(self.{name})" for name in fields)
    return (Rule(f"[{there}].filter(given, given).size() == 1", f"write exactly one of {', '.join(fields)}"),)


# ---- kinds of text ----

NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
OBJECT = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
NAMESPACE = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
KEY = "^[-._a-zA-Z0-9]+$"
HTTP = r"^https?://[^\s/]\S*$"
LOCATION = r"^\S(.*\S)?$"
WORD = "^[A-Za-z_][A-Za-z0-9_]*$"
MODEL = r"^\S+$"
LABEL = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
MANAGER = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[-A-Za-z0-9_.~]+)?)?$"
FRACTION = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
FRACTION_OR_NOTHING = r"^([0-9]{1,9}(\.[0-9]{1,9})?)?$"
UP_TO_TWO = r"^([01](\.[0-9]{1,4})?|2(\.0{1,4})?)$"
UP_TO_ONE = r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$"
SHA256 = "^[0-9a-f]{64}$"

IN_WORDS = {
    NAME: "a name of lower case letters, digits and '-' that begins with a letter, such as causal-attention",
    OBJECT: "an object's name: lower case letters, digits, '-' and '.', such as my-config",
    NAMESPACE: "a namespace's name, or nothing for the search's own",
    KEY: "a key of letters, digits, '-', '_' and '.', such as reference.py",
    HTTP: "a URL with scheme and host, such as http://127.0.0.1:8001/v1",
    LOCATION: "a directory or URL without spaces around it",
    WORD: "a name of letters, digits and '_', such as flexAttention",
    MODEL: "a model's name without spaces, as the server lists it, such as deepseek-ai/DeepSeek-R1-0528",
    LABEL: "a label value: letters, digits, '-', '_' and '.'",
    RESOURCE: "an extended resource with its domain, such as nvidia.com/gpu",
    MANAGER: "a controller's domain and path, such as example.com/controller",
    FRACTION: 'a number in quotes, such as "1.5"',
    FRACTION_OR_NOTHING: 'a number in quotes, such as "1.5", or "" for none',
    UP_TO_TWO: 'a number from 0 to 2 in quotes, such as "0.6"',
    UP_TO_ONE: 'a number from 0 to 1 in quotes, such as "0.95"',
    SHA256: "64 hexadecimal digits",
}
"""What to write, for each pattern: the words of every message that a manifest's author sees."""

Name = Annotated[str, Field(pattern=NAME, max_length=40)]
"""Name of one of our objects. Children get suffixes, and a dot is refused in a Service's name."""
Object = Annotated[str, Field(pattern=OBJECT, max_length=253)]
Namespace = Annotated[str, Field(pattern=NAMESPACE, max_length=63)]
Key = Annotated[str, Field(pattern=KEY, max_length=253)]
Url = Annotated[str, Field(pattern=HTTP, max_length=2048)]
Location = Annotated[str, Field(pattern=LOCATION, max_length=2048)]
Word = Annotated[str, Field(pattern=WORD, max_length=63)]
Label = Annotated[str, Field(pattern=LABEL, max_length=63)]
Resource = Annotated[str, Field(pattern=RESOURCE, max_length=253)]
Fraction = Annotated[str, Field(pattern=FRACTION, max_length=19)]
FractionOrNothing = Annotated[str, Field(pattern=FRACTION_OR_NOTHING, max_length=19)]
Sha256 = Annotated[str, Field(pattern=SHA256, max_length=64)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1, json_schema_extra={"format": "int64"})]
Seconds = Annotated[int, Field(ge=0, le=2**53 - 1, json_schema_extra={"format": "int64"})]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""RFC 3339."""

Element = TypeVar("Element")


def _no_element_twice(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    twice = sorted({str(each) for each in elements if elements.count(each) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice; write each once")
    return elements


Unique = AfterValidator(_no_element_twice)
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""For `json_schema_extra` of a list whose elements are unique: the API server's own rule, the twin of `Unique`."""
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
"""For a list that is always written whole."""
