"""The whole loop as a user runs it: replay model, local verifier, real kernels; killed and started again."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

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
    search, totals, bests = SmallSearch(tmp_path, attempts=400), [], []
    for _ in range(20):
        process = subprocess.Popen(
            search.command("--verifier-url", verifier, "--json"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        time.sleep(instants.uniform(0.5, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        status = search.out / "status.json"
        if status.exists():
            facts = json.loads(status.read_text())
            totals.append(facts["attempts"]["total"])
            bests.append(bool(facts.get("best")))

    numbers = [a["attempt"] for a in search.archived()]
    assert totals, "no search ever got to its first verdict"
    assert totals == sorted(totals), "a counter went back"
    assert bests == sorted(bests), "a best kernel was lost"
    assert len(numbers) == len(set(numbers)), "an attempt number was used twice"
    assert totals[-1] <= len(numbers) + 20, "a verdict was counted twice"


@pytest.mark.timeout(300)
@pytest.mark.needs("linux")
def test_killing_a_search_leaves_no_process_behind(tmp_path):
    command = SmallSearch(tmp_path, attempts=400).command()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 15
    while _started_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)

    assert _started_below(tmp_path) == []


def _started_below(folder: Path) -> list[str]:
    """Command lines of processes that name the test's own folder, and of orphaned verifiers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            except OSError:
                continue
            if str(folder) in text or ("kernelverify" in text and "serve" in text and parent == "1"):
                found.append(text)
    return found
