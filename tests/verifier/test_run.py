"""The whole loop as a user runs it: replay model, local verifier, real kernels; killed and started again."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import small_search
from small_search import SmallSearch


@pytest.fixture(scope="module")
def verifier():
    """One verifier for all runs of this module."""
    with small_search.verifier() as url:
        yield url


@pytest.mark.timeout(600)
@pytest.mark.needs("linux")
def test_a_search_goes_through_every_kind_of_verdict_and_keeps_its_best(tmp_path, verifier):
    search = SmallSearch(tmp_path, attempts=8)
    command = search.command("--verifier-url", verifier)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    verdicts = {a["verdict"] for a in search.archived()}
    assert {"no_code", "incorrect", "reward_hack", "correct"} <= verdicts
    assert "ModelNew" in (search.out / "best/kernel.py").read_text()
    assert "Replay" in (search.out / "report.html").read_text()
    assert "REPLAY" in done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.needs("linux")
def test_killed_twenty_times_it_loses_only_what_was_in_flight(tmp_path, verifier):
    seed = int(os.environ.get("KERNELSEARCH_TEST_SEED", "7"))
    instants = random.Random(seed)
    search, published, counted = SmallSearch(tmp_path, attempts=400), [], set()
    for _ in range(20):
        process = subprocess.Popen(
            search.command("--verifier-url", verifier, "--json"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _wait_for((search.out / "attempts").exists, process)
        time.sleep(instants.uniform(0.1, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        published.append(json.loads((search.out / "status.json").read_text()))
        counted |= _counted(search.out / "journal.jsonl")

    totals = [facts["attempts"]["total"] for facts in published]
    bests = [facts["best"] for facts in published if "best" in facts]
    numbers = [a["attempt"] for a in search.archived()]
    assert totals[-1] > 0, "no search ever got to its first verdict"
    assert totals == sorted(totals), "a counter went back"
    assert ["best" in facts for facts in published] == sorted("best" in facts for facts in published)
    assert [_rank(best) for best in bests] == sorted(_rank(best) for best in bests), "the best kernel got worse"
    assert len({best["attempt"] for best in bests}) == len({_rank(best) for best in bests}), "an equal one replaced it"
    assert len(numbers) == len(set(numbers)), "an attempt number was used twice"
    assert set(numbers) <= counted, "an attempt was archived and not counted"
    assert _saved(search.out / "journal.jsonl")[-1]["total"] == len(counted), "a verdict was counted twice, or lost"


@pytest.mark.timeout(300)
@pytest.mark.needs("linux")
def test_killing_a_search_leaves_no_process_behind(tmp_path):
    search = SmallSearch(tmp_path, attempts=400)
    process = subprocess.Popen(search.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for((search.out / "attempts").exists, process)
    started = small_search.below(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while (left := _left_of(started, tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)

    assert any("kernelverify" in line for line in started.values())
    assert left == []


def _saved(journal: Path) -> list[dict[str, Any]]:
    """Of each checkpoint: how many verdicts it counts, and the numbers of the attempts that it lists."""
    whole = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [_listed(each["population"]) for each in whole]


def _listed(population: Mapping[str, Any]) -> dict[str, Any]:
    counts = {verdict: count for verdict, count in population["counters"].items() if verdict != "infrastructure"}
    return {"total": sum(counts.values()), "numbers": {each["id"] for each in population["recent"]}}


def _counted(journal: Path) -> set[int]:
    """Attempts that came to a verdict; a checkpoint lists the last twenty, and each verdict writes one."""
    return set().union(*(each["numbers"] for each in _saved(journal)))


def _rank(best: Mapping[str, Any]) -> float:
    """The figure; a kernel that runs by interpreter has none."""
    return float(best.get("speedup", 0.0))


def _wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Returns once it holds, or the process has ended."""
    deadline = time.monotonic() + 200
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)


def _left_of(started: Mapping[int, str], folder: Path) -> list[str]:
    """Command lines of those of the processes that are still there, and of any that name the test's own folder."""
    numbers = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    lines = {number: small_search.command_line(number) for number in numbers}
    return [line for number, line in lines.items() if str(folder) in line or (line and started.get(number) == line)]
