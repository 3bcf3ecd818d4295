"""What will be run: the command line and the manifest, settled before anything is started."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelsearch.cli import manifest, substitutes, wiring
from kernelsearch.cli.substitutes import Substitutes
from kernelsearch.clients.model import Endpoint
from kernelsearch.replay.script import Script, ScriptError
from kernelsearch.replay.script import load as load_script
from kernelsearch.report import best
from kernelsearch.search import ports
from kernelverify_api.request import Problem


@dataclass(frozen=True)
class Asked:
    """The command line."""

    path: str
    out: Path | None = None
    fresh: bool = False
    as_json: bool = False
    deadline: int | None = None
    model_name: str | None = None
    model_url: str | None = None
    replay: Path | None = None
    replay_speed: float = 1.0
    verifier_urls: tuple[str, ...] = ()
    config_dir: Path | None = None

    @property
    def substitutes(self) -> Substitutes:
        """What the user gave for what only a cluster has."""
        return Substitutes(self.config_dir, self.model_url, self.model_name, self.verifier_urls, os.environ)


@dataclass(frozen=True)
class Plan:
    """What will be run: everything that the manifest and the command line settle."""

    search: KernelSearch
    text: str
    problem: Problem
    endpoint: Endpoint
    """Of the model; of a replay it is known once the replay listens."""
    script: Script | None
    """Written answers, to be served in place of a model."""
    verifier_urls: tuple[str, ...]
    budget: ports.LiveSpec

    @property
    def name(self) -> str:
        """Of the search."""
        return self.search.metadata.name

    @property
    def origin(self) -> best.Origin:
        """For the best kernel's folder."""
        beside = " `../search.yaml` is the search that found the kernel, `../attempts/` every prompt and answer."
        return wiring.origin(self.search, self.problem, beside)


def settle(asked: Asked) -> Plan:
    """Raises InvalidManifestError with the field and the flag that would help."""
    search, text = manifest.load(asked.path)
    given = asked.substitutes
    for field in ("suspend", "stop"):
        if getattr(search.spec, field):
            raise InvalidManifestError(Fault(f"spec.{field}", "is true, so that nothing would run; write false"))
    urls = substitutes.verifier_urls(search, given)
    if not urls and sys.platform != "linux":
        message = f"starts a verifier, which needs Linux (this is {sys.platform}); give --verifier-url URL of one"
        raise InvalidManifestError(Fault("spec.verifiers.serve", message))
    problem = wiring.problem(search, substitutes.reference(search.spec.problem, given))
    script = _script(asked)
    endpoint = (
        substitutes.endpoint(search, given) if script is None else Endpoint("http://replay.invalid", script.label)
    )
    return Plan(search, text, problem, endpoint, script, urls, wiring.live_spec(search, asked.deadline))


def _script(asked: Asked) -> Script | None:
    if asked.replay is None:
        return None
    if asked.model_url is not None:
        raise InvalidManifestError(Fault("--replay", "is given beside --model-url; give one of them"))
    try:
        return load_script(asked.replay)
    except ScriptError as error:
        raise InvalidManifestError(Fault("--replay", str(error))) from error
