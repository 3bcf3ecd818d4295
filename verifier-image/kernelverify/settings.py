"""Everything that the environment may set, read in one place."""

import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = "KERNELVERIFY_"


@dataclass(frozen=True)
class Settings:
    """`KERNELVERIFY_CACHE`, `_THREADS`, `_QUEUE`, `_BUILD_WORKERS`: each field says its default and why."""

    cache: Path = Path("~/.cache/kernelsearch/build")
    """Results of builds, keyed by content. Losing it costs time only."""
    threads: int = 0
    """Threads of baselines and candidates alike; 0 means every core this process may use."""
    queue: int = 256
    """Jobs that may wait; beyond it a submission gets 429."""
    build_workers: int = 0
    """Compilers at a time; 0 means as many as cores and memory bear."""

    @property
    def lane_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def read(environment: dict[str, str] | None = None) -> Settings:
    """Raises ValueError, naming the variable, when a value is no number."""
    env = dict(os.environ) if environment is None else environment
    return Settings(
        cache=Path(env.get(f"{PREFIX}CACHE", str(Settings.cache))).expanduser(),
        threads=_number(env, "THREADS", Settings.threads),
        queue=_number(env, "QUEUE", Settings.queue),
        build_workers=_number(env, "BUILD_WORKERS", Settings.build_workers),
    )


def _number(env: dict[str, str], name: str, default: int) -> int:
    text = env.get(PREFIX + name, str(default))
    if not text.isdigit():
        raise ValueError(f"{PREFIX}{name} is {text!r}; write a whole number such as {default or 2}")
    return int(text)
