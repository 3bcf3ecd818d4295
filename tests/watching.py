"""Reads what an object says about itself."""

from typing import Any


def condition(search: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [each for each in search.get("status", {}).get("conditions", ()) if each["type"] == kind]
    return found[0] if found else {}


def complete(search: dict[str, Any]) -> bool:
    return condition(search, "Complete").get("status") == "True"
