"""A manifest's text to a KernelSearch. What is wrong is told with its line, field, value and remedy, all at once."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from kernelsearch.api import validation
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.validation import Fault, InvalidManifestError

LARGEST = 1 << 20
"""Bytes. The API server takes 1.5 MiB; whatever is longer is not a manifest."""

REMEDIES = {
    "cannot start any token": "indent with spaces, YAML takes no tabs",
    "mapping values are not allowed": "put quotes around a text that holds ': ', and check the indentation",
    "could not find expected ':'": "write `field: value`, or check the indentation of the text above",
    "expected <block end>": "check the indentation: fields of one object begin in the same column",
    "undefined alias": "put quotes around a text that begins with *",
    "found undefined tag": "put quotes around a text that begins with !",
}
"""By what the YAML parser says."""


def load(path: str) -> tuple[KernelSearch, str]:
    """The object, and its text. `-` is standard input. Raises InvalidManifestError with every fault found."""
    text = _text(path)
    root = _document(text)
    if doubled := list(_doubled_keys(root)):
        raise InvalidManifestError(*doubled)
    data = _construct(root)
    try:
        return validation.read(data), text
    except InvalidManifestError as error:
        faults = (replace(fault, line=_line(root, fault.field)) for fault in error.faults)
        raise InvalidManifestError(*faults) from error


def _text(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read(LARGEST + 1) if path == "-" else _bytes(Path(path))
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidManifestError(Fault("", "there is no such file; give the manifest's path to -f")) from error
    except OSError as error:
        raise InvalidManifestError(Fault("", f"cannot be read: {error.strerror}; give a YAML file to -f")) from error
    except UnicodeDecodeError as error:
        raise InvalidManifestError(Fault("", f"is no UTF-8 text at byte {error.start}; save it as UTF-8")) from error
    if len(raw) > LARGEST:
        raise InvalidManifestError(
            Fault("", f"has more than {LARGEST} bytes; a manifest is shorter, is this the file?")
        )
    return text


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


class _Loader(yaml.SafeLoader):
    """YAML as the API server reads it: a date is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _document(text: str) -> yaml.Node:
    """The one document of the text, as nodes that know their lines."""
    try:
        documents = [each for each in yaml.compose_all(text, _Loader) if not _is_empty(each)]
    except yaml.YAMLError as error:
        raise InvalidManifestError(_of_yaml(error)) from error
    if len(documents) != 1:
        what = f"holds {len(documents)} documents" if documents else "is empty"
        raise InvalidManifestError(Fault("", f"{what}; write exactly one KernelSearch, as in examples/quickstart.yaml"))
    return documents[0]


def _is_empty(node: yaml.Node | None) -> bool:
    return node is None or (isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null")


def _of_yaml(error: yaml.YAMLError) -> Fault:
    problem = str(getattr(error, "problem", None) or error)
    mark = getattr(error, "problem_mark", None)
    remedy = next((words for said, words in REMEDIES.items() if said in problem), "check indentation and quotes here")
    return Fault("", f"this is no YAML ({problem}); {remedy}", line=mark.line + 1 if mark else None)


def _doubled_keys(node: yaml.Node, path: str = "") -> Iterator[Fault]:
    """Keys that stand twice in one object: most readers would silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _doubled_keys(child, f"{path}[{index}]")
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, child in node.value:
            name, line = f"{path}.{key.value}".lstrip("."), key.start_mark.line + 1
            if name in first:
                yield Fault(name, f"stands here for the second time, first in line {first[name]}; keep one", line)
            first.setdefault(name, line)
            yield from _doubled_keys(child, name)


def _construct(root: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an integer of thousands of digits, among others
        raise InvalidManifestError(
            _of_yaml(error) if isinstance(error, yaml.YAMLError) else _of_value(error)
        ) from error
    finally:
        loader.dispose()


def _of_value(error: ValueError) -> Fault:
    return Fault("", f"holds a value that cannot be read ({error}); put quotes around it if it is a text")


def _line(root: yaml.Node, field: str) -> int | None:
    """Where a field stands; of one that is missing, where its object does."""
    node, line = root, None
    for step in field.replace("[", ".[").split("."):
        found = _child(node, step)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node, step: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and step.startswith("["):
        index = int(step[1:-1])
        return (node.value[index].start_mark.line + 1, node.value[index]) if index < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark.line + 1, child) for key, child in node.value if key.value == step), None)
    return None
