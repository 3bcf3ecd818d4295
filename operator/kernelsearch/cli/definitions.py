"""`kernelsearch crd`: the custom resource definitions as files."""

from pathlib import Path
from typing import Any

import yaml

from kernelsearch.api import crd, fields

HEADER = "# Generated from operator/kernelsearch/api by `kernelsearch crd`. Do not edit.\n"


def files() -> dict[str, str]:
    """Text of each definition, by file name."""
    return {name: HEADER + _text(definition) for name, definition in crd.definitions().items()}


def write(folder: Path) -> list[Path]:
    """Write them all; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files()]


def stale(folder: Path) -> list[Path]:
    """Files that are missing or say something else than the models."""
    paths = {folder / name: text for name, text in files().items()}
    return [path for path, text in paths.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def write_page(path: Path) -> Path:
    """The page of every field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fields.page(), encoding="utf-8")
    return path


def page_is_stale(path: Path) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != fields.page()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - equal parts are written out: people read this file
        return True


def _text(definition: dict[str, Any]) -> str:
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
