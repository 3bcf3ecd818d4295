"""The page for those who operate it knows every reason that a condition may give, and none that no condition gives."""

import ast
import re
from pathlib import Path

import pytest

from kernelsearch import metrics
from kernelsearch.controller.cluster import KINDS
from kernelsearch.search.facts import Reason

WORD = re.compile("([A-Z][a-z]+)+")
CONDITIONS = {
    *("Accepted", "ModelReady", "VerifiersReady", "RunnerReady", "Progressing", "Solved", "Complete", "Suspended"),
    *("Degraded", "Ready", "UpdatePending"),
}
NO_REASONS = {
    *CONDITIONS,
    *KINDS,
    *("True", "False", "Unknown"),
    *("Failed", "Succeeded"),  # phases
    *("ReplicaFailure", "FailedCreate"),  # Kubernetes' own
    "Place",  # a class, in an annotation
}
ALSO_REASONS = {"Suspended"}
"""What is the name of a condition, and a reason of another one."""


def constants(tree: ast.Module) -> set[str]:
    """Words in the code that may be reasons. `{kind}NotFound` stands for one word a kind."""
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
            found |= (
                {f"{kind}{node.value}" for kind in ("ModelServer", "VerifierPool")}
                if id(node) in parts
                else {node.value}
            )
    return found


@pytest.fixture
def given(root: Path) -> set[str]:
    """By the operator; and, as outcomes, by the runner."""
    modules = [
        *(path for path in (root / "operator/kernelsearch/controller/plan").glob("*.py") if path.name != "pods.py"),
        root / "operator/kernelsearch/cli/cluster_session.py",
    ]
    found = set().union(*(constants(ast.parse(path.read_text())) for path in modules))
    return {word for word in found if word not in NO_REASONS} | ALSO_REASONS | {each.value for each in Reason}


@pytest.fixture
def told(root: Path) -> dict[str, set[str]]:
    """Words of the table's column of reasons, by those of its first column."""
    found: dict[str, set[str]] = {}
    conditions: list[str] = []
    for line in (root / "docs/operations.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and not set(cells[2]) <= {"-"} and cells[1] != "condition":
            conditions = re.findall(r"(\w+)(?:=\w+)?", cells[1]) or conditions
            for each in conditions:
                found.setdefault(each, set()).update(re.findall(r"\b[A-Z]\w+\b(?!=)", cells[2]))
    return found


def test_the_table_knows_every_condition(told):
    assert told.keys() == CONDITIONS


def test_the_table_has_every_reason_and_no_other(told, given):
    words = set().union(*told.values()) - (NO_REASONS - ALSO_REASONS)

    assert words == given


def test_whatever_ends_a_search_has_its_series(told):
    """From the start: `increase()` does not see one that is born at 1."""
    assert set(metrics.FINISHED) == told["Complete"] - {"NotYet"}


def test_whatever_ends_a_search_is_a_reason_of_complete(told):
    assert {each.value for each in Reason if each is not Reason.SUSPENDED} <= told["Complete"]
