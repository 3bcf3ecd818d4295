"""Writes docs/values.md: every value of the chart, its default, and the comment that stands above it in values.yaml.

`python charts/document.py` writes; tests/unit/test_chart.py fails when the page is stale or a value has no comment.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "kernelsearch"
PAGE = CHART.parent.parent / "docs/values.md"
HEAD = """# Values of the chart

Made from `charts/kernelsearch/values.yaml` by `python charts/document.py`; do not edit. What is not here is refused by
`values.schema.json`.

| value | default | meaning |
| --- | --- | --- |
"""
_KEY = re.compile(r"( *)([A-Za-z][\w.-]*):( |$)")
CLOSED = {"presets"}
"""Maps that are one value: their keys are the user's."""


def page() -> str:
    """The whole text."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    said = comments(text)
    rows = [
        f"| `{path}` | {_default(value)} | {said.get(path, '').replace('|', '/')} |"
        for path, value in leaves(yaml.safe_load(text))
    ]
    return HEAD + "\n".join(rows) + "\n"


def leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that a user sets as a whole, by its path."""
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value and path not in CLOSED and not path.endswith("resources"):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def comments(text: str) -> dict[str, str]:
    """The comment directly above each key, by the key's path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    words: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("# "):
            words.append(line.strip()[2:])
        elif match := _KEY.match(line):
            indent, name = len(match[1]), match[2]
            path = [*(each for each in path if each[0] < indent), (indent, name)]
            if words:
                found[".".join(each for _, each in path)] = " ".join(words)
            words = []
        else:
            words = []
    return found


def _default(value: Any) -> str:
    if isinstance(value, dict) and any(isinstance(each, dict) for each in value.values()) and len(value) > 2:  # noqa: PLR2004
        return ", ".join(f"`{name}`" for name in value)
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
