"""`kernelsearch operator`: logging, settings, exit codes."""

import asyncio
import logging

import click

from kernelsearch.controller import cluster, operate, settings

STOPPED, UNUSABLE, NO_CLUSTER = 0, 2, 3


def run(*, verbose: bool) -> int:
    """The exit code."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s  %(message)s",
    )
    for noisy in ("kopf.objects", "asyncio", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
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
