"""How fast the operator makes what it is asked for, what it costs at rest, and how much it writes.

A real API server with controllers and scheduler, no node: no pod ever runs, which is not the operator's time.

    python benchmarks/fleet.py [--searches 100] [--json]

- `make_ratio`: time until every child of N searches exists, over the time in which one client makes as many of the same
  objects directly, four at a time;
- `waiting`: memory of the operator while N searches wait for their pods;
- `rest`: memory and CPU of the operator with N finished searches;
- `waiting_writes_per_search_minute`: requests that change something, while N searches wait;
- `active_writes_per_minute`: the same of one search with a verdict each 1.7 s, runner and operator together;
- `visible_best_s`, `visible_verdict_s`: from a verdict until whoever watches the object sees it, at a runner's pace of
  publishing (a heartbeat each second, a write at most each 2 s for a better kernel, each 10 s for other verdicts):
  median and longest.
"""

import argparse
import asyncio
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cluster import machine
from kernelsearch.controller import cluster as api
from kernelsearch.controller.builders import names
from kernelsearch.controller.running.own import OwnSearch
from kernelsearch.search.config import SearchConfig

ROOT = Path(__file__).parents[1]
GROUP = "kernelsearch.dev/v1alpha1"
CHILDREN = (
    *(api.CONFIG_MAP, api.SERVICE_ACCOUNT, api.ROLE, api.ROLE_BINDING, api.NETWORK_POLICY, api.SERVICE, api.DEPLOYMENT),
    *(api.MODEL_SERVER, api.VERIFIER_POOL),
)
"""Pods are left out: those of Deployments look like the runner's."""
SETTLED_S = 10.0
"""Without a new child of a lone search: it has all."""
SELECTOR = "app.kubernetes.io/managed-by=kernelsearch"
SIDE_BY_SIDE = 4
REST_S = 60.0
CALM_S = 5.0
"""With fewer writes than one a second, the operator has caught up with what it missed while it stood still."""
HEARTBEAT_S = SearchConfig.heartbeat_seconds


def search(name: str, namespace: str) -> dict[str, Any]:
    spec = {
        "problem": {"inline": {"reference": "class Model: ..."}},
        "model": {"name": "r1", "serve": {"image": "none", "gpu": {"count": 1}}},
        "verifiers": {"serve": {"device": "cpu"}},
    }
    return {
        "apiVersion": GROUP,
        "kind": "KernelSearch",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


async def each(work: Any, items: list[Any]) -> None:
    """The work on every item, a few at a time."""
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(item: Any) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*map(one, items))


async def count(server: api.ApiServer, namespace: str) -> int:
    return sum([len(await server.versions(kind, namespace, SELECTOR)) for kind in CHILDREN])


async def of_one(server: api.ApiServer, namespace: str) -> int:
    """How many children a search has that nothing disturbs."""
    await server.create(search("s0", namespace))
    found, since = 0, time.monotonic()
    while not found or time.monotonic() - since < SETTLED_S:
        await asyncio.sleep(0.5)
        if (now := await count(server, namespace)) != found:
            found, since = now, time.monotonic()
    return found


async def by_operator(server: api.ApiServer, namespace: str, searches: int, children: int) -> float:
    start = time.monotonic()
    await each(server.create, [search(f"s{n}", namespace) for n in range(searches)])
    while await count(server, namespace) < searches * children:  # noqa: ASYNC110 - what is waited for is elsewhere
        # Listing thousands of objects is work for the server under measurement: look less often when it takes long.
        await asyncio.sleep(max(0.2, 0.02 * (time.monotonic() - start)))
    return time.monotonic() - start


async def directly(server: api.ApiServer, made: str, namespace: str, searches: int) -> float:
    """The children of one search, made for as many names."""
    template = [body for kind in CHILDREN for body in await server.list(kind, made, SELECTOR)]
    template = [body for body in template if re.match(r"s0(-|$)", body["metadata"]["name"])]
    everything = [_renamed(body, namespace, n) for n in range(searches) for body in template]
    start = time.monotonic()
    await each(server.create, everything)
    return time.monotonic() - start


async def remove(server: api.ApiServer, namespace: str) -> None:
    """What was made directly and would be the operator's business: its own kinds, and what has its label by now."""
    for kind in (api.MODEL_SERVER, api.VERIFIER_POOL, api.DEPLOYMENT):
        found = [body["metadata"]["name"] for body in await server.list(kind, namespace)]
        await each(functools.partial(server.delete, kind, namespace), found)


def _renamed(body: dict[str, Any], namespace: str, number: int) -> dict[str, Any]:
    name = re.sub("^s0", f"d{number}", body["metadata"]["name"])
    kept = {key: value for key, value in body.items() if key not in {"status", "metadata"}}
    kept.get("spec", {}).pop("clusterIP", None)
    kept.get("spec", {}).pop("clusterIPs", None)
    labels = {key: value for key, value in body["metadata"]["labels"].items() if key not in names.MANAGED_BY}
    return {**kept, "metadata": {"name": name, "namespace": namespace, "labels": labels}}


async def writes(server: api.ApiServer) -> int:
    text = await server.text("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total{")]
    ours = [line for line in lines if re.search('verb="(POST|PUT|PATCH|APPLY|DELETE)"', line)]
    ours = [line for line in ours if "kernelsearch.dev" in line or 'resource="pods"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in ours)


async def calm(server: api.ApiServer) -> None:
    before = await writes(server)
    while True:
        await asyncio.sleep(CALM_S)
        if (now := await writes(server)) - before < CALM_S:
            return
        before = now


def usage(pid: int) -> tuple[float, float]:
    """Resident memory in MiB, and seconds of CPU used so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return memory, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def finish(server: api.ApiServer, namespace: str, searches: int) -> None:
    """As their runners would."""

    async def one(number: int) -> None:
        metadata = {"name": f"s{number}", "namespace": namespace}
        outcome = {"outcome": {"reason": "NoCorrectKernel", "message": "none"}}
        body = {"apiVersion": GROUP, "kind": "KernelSearch", "metadata": metadata, "status": outcome}
        await server.apply_status(body, "kernelsearch-runner")

    await each(one, list(range(searches)))
    while await count(server, namespace) > 2 * searches:  # noqa: ASYNC110 - their two ConfigMaps stay
        await asyncio.sleep(2)


async def visible(server: api.ApiServer, namespace: str, seconds: float = 90.0) -> dict[str, float]:
    """A verdict every 1.7 s, every sixth the best so far, published as a runner does; seen by a watch."""
    body = await server.get(api.KERNEL_SEARCH, namespace, "s0")
    own = OwnSearch(server, namespace, "s0", body["metadata"]["uid"])
    await own.read()
    told: dict[str, dict[int, float]] = {"verdict": {}, "best": {}}
    seen: dict[str, dict[int, float]] = {"verdict": {}, "best": {}}

    async def watch() -> None:
        async for found in server.watch(api.KERNEL_SEARCH, namespace, "s0"):
            status = (found or {}).get("status", {})
            reached = {"verdict": status.get("attempts", {}).get("total", 0)}
            reached["best"] = status.get("best", {}).get("attempt", 0)
            for kind, number in reached.items():
                for each_told in set(told[kind]) - set(seen[kind]):
                    if each_told <= number:
                        seen[kind][each_told] = time.monotonic()

    watching = asyncio.create_task(watch())
    before = await writes(server)
    start, total, best = time.monotonic(), 0, 0
    figures = {"speedup": "1.5", "microseconds": "10.0", "baseline": "eager", "foundAfterSeconds": 4}
    while time.monotonic() - start < seconds:
        if (time.monotonic() - start) / 1.7 > total:
            total += 1
            told["verdict"][total] = time.monotonic()
            if total % 6 == 0:
                best = total
                told["best"][best] = time.monotonic()
        source = {"language": "cpp", "sha256": "0" * 64, "source": "x", "verifiedOn": "a CPU"}
        facts = {"sequence": total, "attempts": {"total": total}}
        await own.publish({**facts, **({"best": {"attempt": best, **source, **figures}} if best else {})})
        await asyncio.sleep(min(HEARTBEAT_S, max(0.0, start + 1.7 * total - time.monotonic())))
    await asyncio.sleep(1)
    watching.cancel()
    written = await writes(server) - before
    found = {"active_writes_per_minute": round(written / ((time.monotonic() - start) / 60), 1)}
    for kind in ("best", "verdict"):
        delays = sorted(seen[kind][number] - told[kind][number] for number in seen[kind])
        found[f"visible_{kind}_s"] = round(delays[len(delays) // 2], 2)
        found[f"visible_{kind}_longest_s"] = round(delays[-1], 2)
    return found


def say(text: str) -> None:
    """How far it is: a thousand searches take a quarter of an hour."""
    print(text, file=sys.stderr, flush=True)


async def measure(searches: int, pid: int) -> dict[str, float]:
    async with api.connect() as server:
        for name in ("one", "by-operator", "directly"):
            manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await server._ask("POST", "/api/v1/namespaces", body=api.serialise.yaml(manifest))  # noqa: SLF001
        children = await of_one(server, "one")
        say(f"a search has {children} children; making {searches} ...")
        made = await by_operator(server, "by-operator", searches, children)
        say(f"the operator took {made:.1f} s; resting ...")
        await asyncio.sleep(10)
        before = await writes(server)
        await asyncio.sleep(REST_S)
        written = await writes(server) - before
        waiting, _ = usage(pid)
        say(f"{waiting:.0f} MiB while they wait; making the same directly ...")
        os.kill(pid, 19)  # stopped: what is made directly is not its business
        try:
            direct = await directly(server, "by-operator", "directly", searches)
            await remove(server, "directly")
        finally:
            os.kill(pid, 18)
        say(f"that took {direct:.1f} s; waiting until the operator has caught up ...")
        await calm(server)
        say("publishing verdicts ...")
        shown = await visible(server, "by-operator")
        say(f"{shown}; finishing them all ...")
        await finish(server, "by-operator", searches)
        say("resting ...")
        await asyncio.sleep(5)
        _, start = usage(pid)
        await asyncio.sleep(REST_S)
        memory, end = usage(pid)
    return {
        "searches": searches,
        "children_each": children,
        "make_s": round(made, 1),
        "direct_s": round(direct, 1),
        "make_ratio": round(made / direct, 2),
        "waiting_memory_mib": round(waiting, 1),
        "rest_memory_mib": round(memory, 1),
        "rest_cpu_percent": round((end - start) / REST_S * 100, 2),
        "waiting_writes_per_search_minute": round(written / searches / (REST_S / 60), 3),
        **shown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("go") is None:
        print("not measured: needs root and Go, for a cluster of its own")
        return
    with tempfile.TemporaryDirectory() as folder, machine.held(Path(folder), node=False) as cluster:
        cluster.kubectl("apply", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        images = {"KERNELSEARCH_OPERATOR_IMAGE": "none", "KERNELSEARCH_VERIFIER_IMAGE": "none"}
        environment = {**cluster.environment, **images, "KERNELSEARCH_PORT": "0"}
        os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
        with Path(folder, "operator.log").open("w") as log:
            command = [sys.executable, "-m", "kernelsearch.cli", "operator"]
            operator = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            figures = asyncio.run(measure(arguments.searches, operator.pid))
        finally:
            operator.terminate()
            operator.wait(60)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
