"""Reads a manifest's data as a KernelSearch, or says of each fault: the field, its value, what to write instead.

Every fault that can be seen is told at once. The same words serve the command line and, as `Accepted=False`, the
operator.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.part import IN_WORDS
from kernelsearch.api.resource import GROUP, VERSION

MAX_SHOWN = 60
"""Characters of a value in a message."""
KINDS_OF_A_CLUSTER = ("ModelServer", "VerifierPool")

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, for the author."""

    field: str
    """As a manifest's author would write it, such as `spec.kernel.languages[0]`; empty for the whole."""
    message: str
    """What it is, and what to write instead."""
    line: int | None = None
    """Of the manifest's text, where known."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.field}: {self.message}" if self.field else f"{where}{self.message}"


class InvalidManifestError(Exception):
    """The manifest is unusable; `faults` say why, each with its remedy."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def read(data: object) -> KernelSearch:
    """The object. Raises InvalidManifestError with every fault found."""
    if not isinstance(data, Mapping):
        raise InvalidManifestError(Fault("", f"the manifest is {shown(data)}; write an object with {_list(_ROOT)}"))
    if faults := tuple(_of_another_kind(data)):
        raise InvalidManifestError(*faults)
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise InvalidManifestError(Fault("", "holds .nan or .inf, which no field takes; write a number")) from error
    except TypeError as error:
        raise InvalidManifestError(
            Fault("", f"holds what is neither text, number, list nor object: {error}")
        ) from error
    try:
        return KernelSearch.model_validate_json(text)
    except ValidationError as error:
        raise InvalidManifestError(*_told(error)) from error


def stored(body: Mapping[str, Any]) -> KernelSearch:
    """The object as an API server holds it, whatever a newer schema added. Raises InvalidManifestError."""
    try:
        return KernelSearch.stored(body)
    except ValidationError as error:
        raise InvalidManifestError(*_told(error)) from error


def shown(value: object) -> str:
    """A value as it may stand in a message: on one line, bounded."""
    if isinstance(value, Mapping):
        return f"an object with {_list(list(map(str, value))[:6])}" if value else "an empty object"
    if isinstance(value, list | tuple) and len(str(value)) > MAX_SHOWN:
        return f"a list of {len(value)}"
    if value is None:
        return "empty"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."


_ROOT = ("apiVersion", "kind", "metadata", "spec")


def _of_another_kind(data: Mapping[Any, Any]) -> Iterator[Fault]:
    """Told alone: the fields of another kind would all be "unknown"."""
    kind, version = data.get("kind"), data.get("apiVersion")
    ours = version == f"{GROUP}/{VERSION}"
    if ours and kind in KINDS_OF_A_CLUSTER:
        yield Fault(
            "kind", f"is {shown(kind)}, which only a cluster can serve; write KernelSearch to run one search here"
        )
    elif kind != "KernelSearch":
        yield Fault("kind", f"is {'missing' if kind is None else shown(kind)}; write KernelSearch")
    if not ours:
        yield Fault("apiVersion", f"is {'missing' if version is None else shown(version)}; write {GROUP}/{VERSION}")


def _told(error: ValidationError) -> list[Fault]:
    """All faults but those of a list that is too short only because its elements are at fault."""
    found = error.errors(include_url=False)
    inner = {each["loc"][:-1] for each in found if each["loc"]}
    return [
        Fault(_written(each["loc"]), _sentence(each))
        for each in found
        if each["type"] != "too_short" or each["loc"] not in inner
    ]


def _written(path: Path) -> str:
    """`spec.kernel.languages[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _sentence(error: Any) -> str:
    """One finding of pydantic in the words of a manifest's author."""
    kind, path, value, context = error["type"], tuple(error["loc"]), error["input"], error.get("ctx", {})
    if kind in _SELF_EXPLAINING:
        return _SELF_EXPLAINING[kind](path, value, context)
    remedy = _REMEDIES.get(kind)
    return f"is {shown(value)}; {remedy(path, value, context) if remedy else error['msg']}"


# ---- faults of a shape of their own ----


def _missing(path: Path, _: Any, __: Mapping[str, Any]) -> str:
    known = _fields(path)
    return f"is missing; write an object with {_list(known)}" if known else f"is missing; {_about(path)}"


def _unknown(path: Path, _: Any, __: Mapping[str, Any]) -> str:
    known = _fields(path[:-1])
    near = _nearest(str(path[-1]), known)
    elsewhere = _elsewhere(str(path[-1]), path[:-1])
    if near:
        return f"is no field here; did you mean {near}?"
    if elsewhere:
        return f"is no field here; it belongs under {elsewhere}"
    return f"is no field here; write one of {_list(known)}, or leave it out"


def _too_long(_: Path, value: Any, context: Mapping[str, Any]) -> str:
    what = "characters" if isinstance(value, str) else "entries"
    return f"has {len(value)} {what}; write at most {context['max_length']}"


def _too_short(path: Path, value: Any, __: Mapping[str, Any]) -> str:
    what = "text" if isinstance(value, str) else "list"
    return f"is an empty {what}; {_about(path) or 'write something'}"


def _own_words(_: Path, __: Any, context: Mapping[str, Any]) -> str:
    return str(context["error"])


_Telling = Callable[[Path, Any, Mapping[str, Any]], str]

_SELF_EXPLAINING: dict[str, _Telling] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "string_too_long": _too_long,
    "too_long": _too_long,
    "string_too_short": _too_short,
    "too_short": _too_short,
    "value_error": _own_words,
}

# ---- faults of the shape "is VALUE; REMEDY" ----


def _one_of(_: Path, value: Any, context: Mapping[str, Any]) -> str:
    choices = re.findall(r"'([^']*)'", context["expected"])
    near = _nearest(str(value), choices)
    return (
        f"write {near} (or {_list([each for each in choices if each != near])})" if near else f"write {_list(choices)}"
    )


def _in_words(_: Path, __: Any, context: Mapping[str, Any]) -> str:
    pattern = context["pattern"]
    return f"write {IN_WORDS.get(pattern, f'text that matches {pattern}')}"


def _text(path: Path, value: Any, _: Mapping[str, Any]) -> str:
    if isinstance(value, bool | int | float):
        return f'write it as text, in quotes: "{str(value).lower() if isinstance(value, bool) else value}"'
    return f"write text{_or_nothing(path, value)}"


def _whole_number(path: Path, value: Any, _: Mapping[str, Any]) -> str:
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value.strip()):
        return f"write it without quotes: {value.strip()}"
    return f"write a whole number{_range(path)}{_or_nothing(path, value)}"


def _in_range(path: Path, _: Any, context: Mapping[str, Any]) -> str:
    side = f"at least {context['ge']}" if "ge" in context else f"at most {context.get('le')}"
    return f"write a whole number{_range(path) or f' of {side}'}"


def _yes_or_no(_: Path, __: Any, ___: Mapping[str, Any]) -> str:
    return "write true or false, without quotes"


def _list_of(path: Path, value: Any, _: Mapping[str, Any]) -> str:
    example = value if isinstance(value, str) else "..."
    return f"write a list, such as [{example}]{_or_nothing(path, value)}"


def _object(path: Path, value: Any, _: Mapping[str, Any]) -> str:
    known = _fields(path)
    return f"write an object{f' with {_list(known)}' if known else ''}{_or_nothing(path, value)}"


_REMEDIES: dict[str, _Telling] = {
    "enum": _one_of,
    "literal_error": _one_of,
    "string_pattern_mismatch": _in_words,
    "string_type": _text,
    "int_type": _whole_number,
    "int_from_float": _whole_number,
    "greater_than_equal": _in_range,
    "less_than_equal": _in_range,
    "bool_type": _yes_or_no,
    "tuple_type": _list_of,
    "model_type": _object,
    "model_attributes_type": _object,
    "dict_type": _object,
}


def _or_nothing(path: Path, value: Any) -> str:
    field = _field(path)
    return ", or leave the field out" if value is None and field is not None and not field.is_required() else ""


def _range(path: Path) -> str:
    field = _field(path)
    limits = {type(each).__name__: each for each in (field.metadata if field else ())}
    if {"Ge", "Le"} <= limits.keys():
        return f" from {limits['Ge'].ge} to {limits['Le'].le}"
    return ""


# ---- what the models know ----


def _about(path: Path) -> str:
    """The first sentence of a field's description."""
    field = _field(path)
    words = " ".join((field.description or "").split()) if field else ""
    first = re.split(r"(?<=[.:;]) ", words, maxsplit=1)[0].rstrip(".:;")
    return f"write it here ({first})" if first else ""


def _field(path: Path) -> FieldInfo | None:
    part = _part(path[:-1])
    fields = part.model_fields.values() if part else ()
    return next((field for field in fields if path and field.alias == path[-1]), None)


def _fields(path: Path) -> list[str]:
    part = _part(path)
    return [field.alias or name for name, field in part.model_fields.items()] if part else []


def _part(path: Path) -> type[BaseModel] | None:
    """The model that stands at a path of the manifest."""
    part: type[BaseModel] | None = KernelSearch
    for step in path:
        fields = part.model_fields.values() if part else ()
        found = next((field for field in fields if field.alias == step), None)
        part = _model_in(found.annotation) if found else None
    return part


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _elsewhere(name: str, here: Path) -> str:
    """Where in the spec a field of this very name stands: a slip of indentation, most of the time."""
    paths = _all_fields(("spec",), KernelSearch.model_fields["spec"])
    return next((_written(path[:-1]) for path in paths if path[-1] == name and path[:-1] != here), "")


def _all_fields(path: Path, field: FieldInfo) -> Iterator[Path]:
    part = _model_in(field.annotation)
    for child in part.model_fields.values() if part else ():
        below = (*path, child.alias or "")
        yield below
        yield from _all_fields(below, child)


def _nearest(word: str, known: Sequence[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""


def _list(words: Sequence[str]) -> str:
    *rest, last = words or ("nothing",)
    return f"{', '.join(rest)} or {last}" if rest else last
