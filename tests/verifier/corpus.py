"""The corpus of kernels: what each file's docstring says of it."""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("correct", "wrong", "cheats")
OPTIONS = {"custom_kernel": "--custom-kernel", "torch_ops": "--torch-ops", "timeout": "--timeout", "level": "--level"}


@dataclass(frozen=True)
class Kernel:
    """One candidate: its file, its problem, the verdict that is right for it, and how it is to be judged."""

    path: Path
    problem: Path
    expected: frozenset[str]
    """One, or more where chance or the machine decides: `because` says why."""
    because: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def read(path: Path) -> Kernel:
    """The docstring's `key: value` lines; a syntax error further down does not matter."""
    fields = dict(line.split(": ", 1) for line in _docstring(path).splitlines() if ": " in line and line[0].islower())
    arguments = [part for key, flag in OPTIONS.items() if key in fields for part in (flag, fields[key])]
    return Kernel(
        path=path,
        problem=ROOT / "problems" / f"{fields['problem']}.py",
        expected=frozenset(verdict.strip() for verdict in fields["expect"].split(",")),
        because=fields.get("because", ""),
        arguments=tuple(arguments),
    )


def kernels() -> list[Kernel]:
    return [read(path) for folder in FOLDERS for path in sorted((ROOT / "kernels" / folder).glob("*.py"))]


def _docstring(path: Path) -> str:
    text = path.read_text()
    return ast.literal_eval(text[: text.index('"""', 3) + 3])
