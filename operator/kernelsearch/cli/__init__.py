"""The command line, and the composition of everything else: the only package that knows all others.

`commands` parses what is typed. `kernelsearch run` is `session`, which reads a `manifest`, keeps its results in a
`folder`, starts a `local` verifier, maps one onto the other by `wiring`, and shows the search by `display` and `lines`.
Decisions belong to `search`, words about manifests to `api.validation`.
"""

from kernelsearch.cli.commands import main

__all__ = ["main"]
