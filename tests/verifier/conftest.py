"""What the tests of single parts of the judge share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def workplace() -> Iterator[Path]:
    """What a referee works in: a folder as a verifier makes it, open to candidates' own users unlike pytest's, and a
    process that takes in orphans. Afterwards this process is as it was: other tests look where orphans go.
    """
    import torch

    from kernelverify import scratch
    from kernelverify.sandbox import kernel

    folder, threads = scratch.make(), torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 0)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    scratch.remove(folder)


@pytest.fixture(scope="module")
def guest(workplace: Path) -> Iterator[Callable[..., object]]:
    """Runs a candidate's source on inputs in a real guest process: `guest(source, inputs, like, **job)`.

    Only there is Triton interpreted and are launches taken hold of, for good; this process stays as it is.
    """
    from kernelverify.host.candidate import Job, Loaded
    from kernelverify.host.memory import Region
    from kernelverify.host.zygote import Zygote

    with Zygote(workplace) as zygote:

        def call(source: str, inputs: list[object], like: object, *, idle: bool = False, **job: object) -> object:
            """The answer to one call: Ran or Crash. `like`: tensors of the answer's shapes and dtypes."""
            with zygote.spawn(Job(source=source, **job)) as process:
                loaded = process.load([], seed=0, dtype=None, timeout=60)
                if not isinstance(loaded, Loaded):
                    return loaded
                with Region.inputs(inputs) as given, Region.outputs(like) as outputs:
                    return process.run(process.open(given, outputs), 60, idle=idle)

        yield call
