"""Reads what an object says about itself, and waits for what is bound to come."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 300.0
"""Far longer than anything takes: whoever waits in vain learns why, and a loaded machine fails no test."""


def condition(search: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [each for each in search.get("status", {}).get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def complete(search: dict[str, Any]) -> bool:
    return condition(search, "Complete").get("status") == "True"


def running(search: dict[str, Any]) -> bool:
    return search.get("status", {}).get("phase") == "Running"


def attempts(search: dict[str, Any]) -> int:
    return int(search.get("status", {}).get("attempts", {}).get("total", 0))


def best(search: dict[str, Any]) -> dict[str, Any] | None:
    return search.get("status", {}).get("best")


def until(holds: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    """Returns once it holds; the last answer is in the failure."""
    deadline = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {answer!r}"
        time.sleep(0.5)
