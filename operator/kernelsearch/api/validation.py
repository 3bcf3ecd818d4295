"""Reads a manifest's data as a KernelSearch, or says for each fault: field, value, what to write instead."""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.part import IN_WORDS

ROOT = ("apiVersion", "kind", "metadata", "spec", "status")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, for the author."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidManifestError(Exception):
    """The manifest is unusable; `faults` say why, each with its remedy."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def read(data: object) -> KernelSearch:
    """The object, or InvalidManifestError with every fault found."""
    if not isinstance(data, Mapping):
        raise InvalidManifestError((Fault("(document)", f"is {_show(data)}; write a KernelSearch object"),))
    faults = list(_kind(data))
    try:
        # through JSON, as an API server sees it: dates become text, and nothing is coerced
        found = KernelSearch.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        faults += [_fault(each) for each in error.errors()]
        raise InvalidManifestError(_once(faults)) from error
    if faults:
        raise InvalidManifestError(_once(faults))
    return found


def _once(faults: list[Fault]) -> tuple[Fault, ...]:
    return tuple({fault.field: fault for fault in reversed(faults)}.values())[::-1]


def _kind(data: Mapping[str, Any]) -> Iterator[Fault]:
    for field, want in (("apiVersion", "kernelsearch.dev/v1alpha1"), ("kind", "KernelSearch")):
        if data.get(field) != want:
            yield Fault(field, f"is {_show(data.get(field))}; write {want}")


def _fault(error: Any) -> Fault:  # noqa: C901, PLR0911 - one case a kind of error
    """Pydantic's finding in the words of a manifest's author."""
    path = [str(part) for part in error["loc"]]
    field = ".".join(path)
    value = _show(error.get("input"))
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return Fault(field, "is missing; add it")
        case "extra_forbidden":
            return Fault(field, _unknown(path))
        case "literal_error" | "enum":
            return Fault(field, f"is {value}; write one of {context.get('expected')}")
        case "string_pattern_mismatch":
            pattern = str(context.get("pattern"))
            return Fault(field, f"is {value}; write {IN_WORDS.get(pattern, f'text that matches {pattern}')}")
        case "value_error":
            return Fault(field, str(context.get("error", error["msg"])))
        case "greater_than_equal" | "less_than_equal":
            bound = context.get("ge", context.get("le"))
            side = "at least" if "ge" in context else "at most"
            return Fault(field, f"is {value}; write a number of {side} {bound}")
        case "string_type":
            return Fault(field, f'is {value}; write text, in quotes where it looks like a number ("0.6")')
        case "int_parsing" | "int_type" | "int_from_float":
            return Fault(field, f"is {value}; write a whole number")
        case "bool_parsing" | "bool_type":
            return Fault(field, f"is {value}; write true or false")
        case "model_type" | "model_attributes_type" | "dict_type":
            return Fault(field, f"is {value}; write an object with fields")
        case "too_long" | "string_too_long":
            return Fault(field, f"is too long; at most {context.get('max_length')} are allowed")
        case "too_short" | "string_too_short":
            return Fault(field, f"is empty; at least {context.get('min_length')} is needed")
    return Fault(field, f"is {value}; {error['msg']}")


def _unknown(path: list[str]) -> str:
    """An unknown field, with the nearest known name."""
    known = ROOT if len(path) == 1 else _fields(KernelSearch, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"is no field; {hint}"


def _fields(model: type[BaseModel], path: list[str]) -> tuple[str, ...]:
    """Names of the fields at a path."""
    for part in path:
        found = next((f for f in model.model_fields.values() if f.alias == part), None)
        inner = _model_in(found.annotation) if found else None
        if inner is None:
            return ()
        model = inner
    return tuple(f.alias or name for name, f in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    options = [_model_in(a) for a in getattr(annotation, "__args__", ())]
    return next((o for o in options if o is not None), None)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
