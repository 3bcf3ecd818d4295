"""What survives the runner: the whole state of a search as one bounded, JSON-able mapping. Pure.

Schema 1. Ids below `next_id` are never given again: a block of ids is reserved by saving a higher `next_id` before the
first of them is used. Everything else that matters is in the population; the strategy's random state is the seed and
each chain's number of steps.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kernelsearch.search.facts import Outcome
from kernelsearch.search.population import Attempt, Population
from kernelverify_api.request import Problem

SCHEMA = 1
MAX_BYTES = 240 * 1024
"""Compressed. A ConfigMap holds 1 MiB, but our bound is 256 KiB with what stands around it."""


class UnusableCheckpointError(Exception):
    """The saved state is not this search's, or not readable. The message says what to do about it."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a search at one moment."""

    sequence: int
    """Grows with every save and publication."""
    seconds: float
    """On the search clock; where the clock of a resumed search on a laptop starts."""
    next_id: int
    problem: Problem
    """The resolved reference: a resumed search uses this one, whatever its source says by now."""
    population: Population
    strategy: str
    seed: int
    prompt_version: str
    uid: str = ""
    outcome: Outcome | None = None
    schema: int = SCHEMA


_ADAPTER = TypeAdapter(Checkpoint)


def to_mapping(checkpoint: Checkpoint, limit: int = MAX_BYTES) -> dict[str, Any]:
    """JSON-able, and within `limit` bytes when gzipped: old failures lose their sources first, the best never does."""
    for lighter in (checkpoint, *_lighter(checkpoint)):
        mapping: dict[str, Any] = _ADAPTER.dump_python(lighter, mode="json")
        if size(mapping, limit) <= limit:
            break
    return mapping


def from_mapping(mapping: Mapping[str, Any]) -> Checkpoint:
    """Read it back. Raises UnusableCheckpointError."""
    found = mapping.get("schema")
    if found != SCHEMA:
        raise UnusableCheckpointError(
            f"the checkpoint has schema {found!r:.40}, this version reads {SCHEMA}: "
            "use the version that wrote it, or start anew under another name"
        )
    try:
        return _ADAPTER.validate_python(mapping)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnusableCheckpointError(
            f"the checkpoint cannot be read: {where}: {first['msg']}; start anew under another name, or remove it"
        ) from error


def same_search(checkpoint: Checkpoint, uid: str, problem: Problem) -> None:
    """Refuse the checkpoint of another search: by uid where there is one, else by the problem's text."""
    if checkpoint.uid != uid:
        raise UnusableCheckpointError(
            f"the checkpoint belongs to the search with uid {checkpoint.uid!r}, this one is {uid!r}: remove it"
        )
    if not uid and _judged(checkpoint.problem) != _judged(problem):
        raise UnusableCheckpointError(
            f"a search of another problem ({checkpoint.problem.name!r}) is kept here: "
            "choose another name or folder, or remove the old one"
        )


def seconds_used(mapping: Mapping[str, Any] | None) -> float:
    """Where the search clock stood when this was saved; 0 for a new search. For whoever makes the clock."""
    return float(mapping["seconds"]) if mapping and isinstance(mapping.get("seconds"), int | float) else 0.0


def size(mapping: Mapping[str, Any], enough: int = 0) -> int:
    """Bytes when gzipped. Text already within `enough` is not compressed: gzip makes nothing larger that matters."""
    text = json.dumps(mapping, ensure_ascii=False).encode(errors="replace")
    return len(text) if len(text) <= enough else len(gzip.compress(text, compresslevel=6))


def _judged(problem: Problem) -> tuple[str, str | None, bool]:
    return problem.source, problem.dtype, problem.allow_tf32


def _lighter(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The same search with less and less of what it can do without."""
    population = checkpoint.population
    by_age = sorted(range(len(population.chains)), key=lambda number: _last_seconds(population, number))
    half = _stripped(population, by_age[: (len(by_age) + 1) // 2])
    none = _stripped(population, by_age)
    return [replace(checkpoint, population=each) for each in (half, none, replace(none, others=()))]


def _last_seconds(population: Population, chain: int) -> float:
    last = population.chains[chain].last
    return last.seconds if last else 0.0


def _stripped(population: Population, chains: list[int]) -> Population:
    """Without the sources of these chains' last attempts."""
    stripped = tuple(
        replace(chain, last=_without_source(chain.last)) if chain.last and number in chains else chain
        for number, chain in enumerate(population.chains)
    )
    return replace(population, chains=stripped)


def _without_source(attempt: Attempt) -> Attempt:
    return replace(attempt, source="")
