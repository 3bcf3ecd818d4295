"""Everything that the environment may set, read in one place."""

import os
from dataclasses import dataclass
from pathlib import Path

PREFIX = "KERNELVERIFY_"
RANGES = {"THREADS": (0, 1024), "QUEUE": (1, 100_000), "BUILD_WORKERS": (0, 256)}
"""What each number may be: beyond it stands a mistake, not a wish."""


class SettingsError(ValueError):
    """A variable that cannot be used. The message names it, its value and what to write instead."""


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
    """Raises SettingsError."""
    env = dict(os.environ) if environment is None else environment
    return Settings(
        cache=_folder(env),
        threads=_number(env, "THREADS", Settings.threads),
        queue=_number(env, "QUEUE", Settings.queue),
        build_workers=_number(env, "BUILD_WORKERS", Settings.build_workers),
    )


def _number(env: dict[str, str], name: str, default: int) -> int:
    text = env.get(PREFIX + name, str(default))
    least, most = RANGES[name]
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not digits or not least <= int(text) <= most:
        raise SettingsError(
            f"{PREFIX}{name} is {text[:40]!r}; write a whole number from {least} to {most}, such as {default or 2}"
        )
    return int(text)


def _folder(env: dict[str, str]) -> Path:
    """Absolute: candidates and compilers, which read it, have working folders of their own."""
    text = env.get(f"{PREFIX}CACHE", str(Settings.cache))
    try:
        if text:
            return Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"{PREFIX}CACHE is {text!r}: {error}; write the path of a folder that is there") from error
    raise SettingsError(f"{PREFIX}CACHE is empty; write the path of a folder, or leave it out")
