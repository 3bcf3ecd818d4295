"""The command line, and the composition of everything else: the only package that knows all others.

`commands` parses what is typed. `kernelsearch run` is `session`: it settles a `plan` (`manifest`, `substitutes`,
`wiring`), keeps its results in a `folder`, starts a `local` verifier, asks what must be known (`preparation`), runs the
loop, shows it by `display` or `lines`, and says by `ending` how it went. Decisions belong to `search`.
"""

from kernelsearch.cli.commands import main

__all__ = ["main"]
