"""`kernelsearch operator`: logging, settings, exit codes."""

import asyncio
import logging
from pathlib import Path

import click
import yaml

from kernelsearch.api.validation import InvalidManifestError
from kernelsearch.cli import manifest
from kernelsearch.controller import cluster, operate, settings, smoke
from kernelsearch.controller import uninstall as remove

FORMAT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
STOPPED, UNSOLVED, UNUSABLE, NO_CLUSTER = 0, 1, 2, 3


def uninstall(namespace: str, deployment: str, release: str, watched: tuple[str, ...]) -> int:
    """The exit code."""

    async def work() -> None:
        async with cluster.connect() as server:
            await remove.run(server, namespace, deployment, release, watched)

    logging.basicConfig(level=logging.INFO, format=FORMAT)
    try:
        asyncio.run(work())
    except (cluster.ClusterError, OSError) as error:  # TimeoutError is an OSError
        click.echo(f"error: {str(error) or 'the operator did not end in time'}", err=True)
        return NO_CLUSTER
    return STOPPED


def smoke_test(path: Path, seconds: float) -> int:
    """The exit code."""
    try:
        _, text = manifest.load(str(path))
    except InvalidManifestError as error:
        click.echo(f"error: {path}: {error}", err=True)
        return UNUSABLE
    asked = yaml.safe_load(text)
    asked["metadata"].setdefault("namespace", "default")

    async def work() -> dict[str, object]:
        async with cluster.connect() as server:
            return await smoke.run(server, asked, seconds, click.echo)

    try:
        status = asyncio.run(work())
    except TimeoutError:
        click.echo(f"error: the search did not end within {seconds:.0f} s; is the operator running?", err=True)
        return NO_CLUSTER
    except (cluster.ClusterError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        return NO_CLUSTER
    if status.get("best"):
        click.echo("this installation finds, judges and keeps kernels")
        return STOPPED
    click.echo("error: the search ended without a correct kernel", err=True)
    return UNSOLVED


def run(*, verbose: bool) -> int:
    """The exit code."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format=FORMAT)
    for noisy in ("kopf.objects", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("kopf._core.engines.posting").setLevel(logging.CRITICAL)  # events are a courtesy
    try:
        asyncio.run(operate.run(settings.read()))
    except settings.SettingsError as error:
        click.echo(f"error: {error}", err=True)
        return UNUSABLE
    except (cluster.ClusterError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        return NO_CLUSTER
    except KeyboardInterrupt:
        return STOPPED
    return STOPPED
