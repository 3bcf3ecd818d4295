"""The best kernel as files: `kernel.py`, `reference.py`, `report.json`, and how to measure its figure again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelsearch.report import history
from kernelsearch.search import untrusted
from kernelsearch.search.ports import InfrastructureError


@dataclass(frozen=True)
class Origin:
    """What a kernel was written for."""

    search: str
    """The search's name."""
    reference: str
    """Text of the reference."""
    check: str = ""
    """Options of `kernelverify check` that judge as the search did, such as `--dtype float32`."""
    beside: str = ""
    """What else lies beside the folder, in a sentence; on a cluster there is nothing."""


def keep(place: Path, origin: Origin, record: Mapping[str, Any]) -> None:
    """Write the files of an archived attempt; the kernel last. Raises InfrastructureError."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files(origin, record).items():
            fresh = place / f".{name}.new"
            fresh.write_text(text, encoding="utf-8", errors="replace")
            fresh.replace(place / name)
    except OSError as error:
        raise InfrastructureError(
            f"the best kernel could not be written to {place}: {error.strerror or error}; make room there"
        ) from error


def files(origin: Origin, record: Mapping[str, Any]) -> dict[str, str]:
    """Text of each file, by name; the kernel last."""
    return {
        "reference.py": origin.reference,
        "report.json": json.dumps(_report(record), ensure_ascii=False, indent=1) + "\n",
        "REPRODUCE.md": reproduce(origin, record),
        "kernel.py": str(record.get("source") or ""),
    }


def is_kept(place: Path, source: str) -> bool:
    """Whether this kernel is the one in the folder."""
    try:
        return (place / "kernel.py").read_text(encoding="utf-8") == source
    except (OSError, UnicodeDecodeError):
        return False


def reproduce(origin: Origin, record: Mapping[str, Any]) -> str:
    """How this figure came about, and how to measure it again."""
    report = _report(record)
    model = str((record.get("answer") or {}).get("model", ""))
    facts = {
        "search": origin.search,
        "attempt": f"{record.get('attempt')} (chain {record.get('chain')}, {record.get('step')})",
        "answer by": history.label(model),
        "language": record.get("language") or "unknown",
        "figure": figure(report),
        "device": _environment(report),
        "prompts": f"version {record.get('promptVersion', 'unknown')}",
    }
    table = "\n".join(f"- {name}: {untrusted.line(str(value), 300)}" for name, value in facts.items())
    return _TEXT.format(table=table, options=f"{origin.check}{_baselines(report)}", beside=origin.beside)


def figure(report: Mapping[str, Any]) -> str:
    """A report's speed-up in words."""
    speedup = (report.get("timing") or {}).get("speedup")
    if not speedup:
        return "correct; it was not timed"
    low, high = speedup["ci99"]
    how = "re-verified in a fresh pair of processes" if report.get("level") == "champion" else "not re-verified"
    return (
        f"{speedup['ratio']:.3f} times as fast as {speedup['vs']} (99 % interval {low:.3f} to {high:.3f}, "
        f"{speedup['pairs']} interleaved pairs), {how}"
    )


def _report(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record.get("champion") or record.get("full") or {}


def _environment(report: Mapping[str, Any]) -> str:
    where = report.get("environment") or {}
    versions = [f"{name} {where[name]}" for name in ("driver", "torch", "triton") if where.get(name)]
    return ", ".join([str(where.get("device") or "unknown"), *versions])


def _baselines(report: Mapping[str, Any]) -> str:
    timed = (report.get("timing") or {}).get("baselines") or {}
    return "".join(f" --baseline {untrusted.line(name, 63)}" for name in timed)


_TEXT = """# The best kernel of this search

{table}

## Measure it again

```
kernelverify check kernel.py --reference reference.py --level champion {options}
```

The verdict is reproducible; a speed-up belongs to the machine, its clocks and its neighbours. `report.json` is the
verifier's whole report.{beside}
"""
