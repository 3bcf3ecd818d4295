"""What a search is asked to do: plain frozen values, mapped from a `KernelSearch` by the command line.

Everything that a user may omit has its default in the API models; what stands here is what the loop consumes. Budget,
`suspend` and `stop` are not here: they may change while the search runs and arrive as `ports.LiveSpec`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kernelverify_api.request import CustomKernel, Language, Problem, TorchOps


@dataclass(frozen=True)
class Hardware:
    """The device that kernels are judged on, from the verifier's capabilities and never from guesses."""

    device: str
    """`cpu` or `cuda`."""
    name: str = ""
    """As the driver prints it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Cores, caches, bandwidth, SMs, shared memory, ...: shown to the model as a table, in this order."""
    emulated_languages: tuple[str, ...] = ()
    """Languages that run by interpreter here: right answers, no times."""


@dataclass(frozen=True)
class SearchConfig:
    """One search."""

    name: str
    problem: Problem
    """The resolved reference; what the checkpoint keeps wins over it after a resume."""
    languages: tuple[Language, ...]
    """Allowed kernel languages, the preferred one first."""
    hardware: Hardware
    model: str
    """The model's name, for the facts; the proposer knows how to reach it."""
    custom_kernel: CustomKernel = CustomKernel.REQUIRED
    torch_ops: TorchOps = TorchOps.REPORT
    baselines: tuple[str, ...] = ("eager",)
    chains: int = 8
    strategy: str = "BestOfN"
    seed: int = 0
    """Makes the strategy's choices repeatable."""
    initial_prompt: str = ""
    """The user's own words, put into every first prompt."""
    degenerate: Mapping[str, str] | None = None
    """What the audit found wrong with the problem (`finding`, `evidence`, ...); None for a sound one."""
    uid: str = ""
    """Identity of the search object; a checkpoint of another one is refused. Empty on a laptop."""
    grace_seconds: float = 60.0
    """For evaluations in flight at the deadline."""
    unavailable_seconds: float = 600.0
    """Model, or all verifiers, gone for so long end the search."""
    heartbeat_seconds: float = 1.0
    """How often facts are published and the live specification is read when nothing else happens."""

    @property
    def problem_sha256(self) -> str:
        """Identity of the problem as it is judged: reference text, dtype and TF32 policy."""
        return hashlib.sha256(self.problem.model_dump_json(exclude={"name"}).encode()).hexdigest()
