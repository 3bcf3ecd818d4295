"""`kernelsearch operator`: logging, settings, exit codes."""

import asyncio
import logging

import click

from kernelsearch.controller import cluster, operate, settings
from kernelsearch.controller import uninstall as remove

FORMAT = "%(asctime)s %(levelname)-7s %(name)s  %(message)s"
STOPPED, UNUSABLE, NO_CLUSTER = 0, 2, 3


def uninstall(namespace: str, deployment: str, watched: tuple[str, ...]) -> int:
    """The exit code."""

    async def work() -> None:
        async with cluster.connect() as server:
            await remove.run(server, namespace, deployment, watched)

    logging.basicConfig(level=logging.INFO, format=FORMAT)
    try:
        asyncio.run(work())
    except (cluster.ClusterError, OSError) as error:  # TimeoutError is an OSError
        click.echo(f"error: {str(error) or 'the operator did not end in time'}", err=True)
        return NO_CLUSTER
    return STOPPED


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
