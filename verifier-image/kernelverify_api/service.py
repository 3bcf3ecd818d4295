"""The envelope of the HTTP service: tickets, states, capabilities, errors."""

from pydantic import Field

from kernelverify_api.report import AuditReport, Report, Stage
from kernelverify_api.request import Message


class ErrorBody(Message):
    """Body of every 4xx and 5xx."""

    error: str
    """What happened, the value, and what to do next."""
    field: str | None = None


class Ticket(Message):
    """202 of a submission."""

    id: str
    position: int
    """Jobs ahead of this one; 0 means next."""


class JobState(Message):
    """GET /v1/evaluations/{id}: `report` is there once `stage` is terminal."""

    id: str
    stage: Stage
    position: int | None = None
    report: Report | None = None
    error: ErrorBody | None = None
    """Why a job `failed`: the problem is unusable as written."""


class AuditState(Message):
    """Answer of POST /v1/audits, which waits for its result."""

    report: AuditReport


class Lane(Message):
    """One device, or the one CPU lane."""

    device: str
    name: str
    """As the driver prints it."""
    ready: bool
    facts: dict[str, str] = Field(default_factory=dict)
    """For the prompt's hardware block: cores, caches, memory bandwidth measured at start, SMs, ..."""


class Capabilities(Message):
    """GET /v1/capabilities: what this verifier can judge, and how well it is sandboxed."""

    version: str
    lanes: tuple[Lane, ...]
    languages: tuple[str, ...]
    emulated_languages: tuple[str, ...] = ()
    """Languages that run by interpreter here: checked, never timed."""
    baselines: tuple[str, ...] = ("eager",)
    sandbox: dict[str, str] = Field(default_factory=dict)
