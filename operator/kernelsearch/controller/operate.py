"""The operator as one process: kopf, the loops, the background work, the metrics. Ends on SIGTERM."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import kopf
from prometheus_client import CollectorRegistry

from kernelsearch.controller import background, cluster, exposition, handlers
from kernelsearch.controller.observe import Observer
from kernelsearch.controller.reconcile import Reconciler
from kernelsearch.controller.settings import Settings
from kernelsearch.metrics import OperatorMetrics

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Until SIGTERM, or until a watch is found dead: then the process must be started anew."""
    observer, health, keys = Observer(), exposition.Health(), dict[str, str]()
    registry = CollectorRegistry()
    metrics = OperatorMetrics(registry)
    registry.register(exposition.Exposition(observer))
    async with cluster.connect() as server:
        await _first_keys(server, keys)
        reconciler = Reconciler(server, settings, observer, metrics, keys, announce=handlers.announce)
        check = background.WatchCheck(server, observer, health, metrics)
        sweeper = background.Sweeper(observer, reconciler.run)
        works: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (background.KEYS_S, lambda: background.refresh_keys(server, keys)),
            (background.CHECK_S, lambda: check.look(settings.namespaces)),
            (background.SWEEP_S, sweeper.sweep),
        ]
        web = await exposition.serve(registry, health, settings.port)
        try:
            async with _beside(works):
                await _kopf(settings, observer, reconciler)
        finally:
            await web.cleanup()


async def _first_keys(server: cluster.ApiServer, keys: dict[str, str]) -> None:
    """Without keys no verifier could admit a runner, so nothing is started before they are there."""
    while not keys:
        try:
            await background.refresh_keys(server, keys)
        except cluster.ClusterError as error:
            log.warning("the keys of ServiceAccounts cannot be read yet: %s", error)
            await asyncio.sleep(2)


@asynccontextmanager
async def _beside(works: list[tuple[float, Callable[[], Awaitable[None]]]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(background.forever(seconds, work)) for seconds, work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


async def _kopf(settings: Settings, observer: Observer, reconciler: Reconciler) -> None:
    registry, configuration = kopf.OperatorRegistry(), kopf.OperatorSettings()
    kopf.on.login(registry=registry)(_login)
    handlers.Handlers(observer, reconciler).register(registry)
    handlers.configure(configuration, namespaced=bool(settings.namespaces))
    await kopf.operator(
        registry=registry,
        settings=configuration,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """A pod's own account, else the kubeconfig."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
