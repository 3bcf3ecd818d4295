"""A search that takes seconds: a softmax over sixteen rows, answers by a replay, real kernels."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs():
    return [torch.randn(16, 64)]


def get_init_inputs():
    return []
"""
RIGHT = (Path(__file__).resolve().parent.parent / "kernels/correct/triton_softmax.py").read_text()
WRONG = RIGHT.replace("tl.sum(e, axis=0)", "2 * tl.sum(e, axis=0)")
CHEAT = """\
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)
"""
BUILT = '''\
import torch
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <cmath>

torch::Tensor softmax(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t rows = x.size(0), columns = x.size(1);
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = x.data_ptr<float>() + r * columns;
    float* b = y.data_ptr<float>() + r * columns;
    float total = 0;
    for (int64_t i = 0; i < columns; ++i) total += b[i] = std::exp(a[i]);
    for (int64_t i = 0; i < columns; ++i) b[i] /= total;
  }
  return y;
}
"""

module = load_inline(name="softmax", cpp_sources=[SOURCE], functions=["softmax"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.softmax(x)
'''
"""C++: the only language whose kernels are timed on a CPU."""
ANSWERS = {"none": None, "wrong": WRONG, "cheat": CHEAT, "right": RIGHT}


@dataclass(frozen=True)
class SmallSearch:
    """A folder with a manifest and a script, and the command over them."""

    folder: Path
    attempts: int
    answers: Mapping[str, str | None] = field(default_factory=lambda: ANSWERS)
    """Kernels by name, given in turn and round and round; None is an answer without a kernel."""
    language: str = "triton"
    chains: int = 2
    budget: Mapping[str, int] = field(default_factory=lambda: {"deadlineSeconds": 600})

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, *more: str) -> list[str]:
        """`kernelsearch run` over both files, which it writes."""
        run = [sys.executable, "-m", "kernelsearch.cli", "run", "-f", str(self._manifest())]
        return [*run, "--replay", str(self._script()), "--replay-speed", "2", "--out", str(self.out), *more]

    def archived(self) -> list[dict[str, Any]]:
        from kernelsearch.search import archive

        return list(archive.read(self.out / "attempts"))

    def _manifest(self) -> Path:
        spec = {
            "problem": {"inline": {"reference": REFERENCE}},
            "kernel": {"languages": [self.language]},
            "model": {"name": "replay:small", "endpoint": {"url": "http://127.0.0.1:1/v1"}},
            "verifiers": {"serve": {"device": "cpu"}},
            "search": {"chains": self.chains},
            "budget": {**self.budget, "maxAttempts": self.attempts},
        }
        head = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "small"}}
        return _write(self.folder / "search.yaml", {**head, "spec": spec})

    def _script(self) -> Path:
        answers = {
            name: {"content": f"```python\n{text}```" if text else "I am thinking."}
            for name, text in self.answers.items()
        }
        rule = {"name": "all", "answers": list(answers), "then": "cycle"}
        pace = {"tokensPerSecond": 2000, "firstTokenSeconds": 0.05}
        script = {"schema": 1, "model": "small", "pace": pace, "answers": answers, "rules": [rule]}
        return _write(self.folder / "replay.yaml", {**script, "fallback": rule["answers"][-1]})


@contextmanager
def verifier() -> Iterator[str]:
    """The URL of a verifier of its own."""
    command = [sys.executable, "-m", "kernelverify.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def below(ancestor: int) -> dict[int, str]:
    """Command lines of the processes that descend from this one, by number."""
    parents = {pid: parent(pid) for pid in (int(each.name) for each in Path("/proc").glob("[0-9]*"))}
    found: dict[int, str] = {}
    while more := {pid for pid, above in parents.items() if above in {ancestor, *found} and pid not in found}:
        found |= {pid: command_line(pid) for pid in more}
    return found


def command_line(pid: int) -> str:
    """Empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def parent(pid: int) -> int | None:
    """None when it is gone."""
    return int(found[1]) if (found := _stat(pid)) else None


def stopped(pid: int) -> bool:
    """By a signal, until another one lets it go on."""
    return _stat(pid)[:1] == ["T"]


def _stat(pid: int) -> list[str]:
    """State, parent and more; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(content))
    return path
