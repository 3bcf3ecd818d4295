"""The whole loop as a user runs it: replay model, local verifier, real kernels; killed and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs():
    return [torch.randn(16, 64)]


def get_init_inputs():
    return []
"""
RIGHT = (Path(__file__).resolve().parent.parent / "kernels/correct/triton_softmax.py").read_text()
WRONG = RIGHT.replace("tl.sum(e, axis=0)", "2 * tl.sum(e, axis=0)")
CHEAT = """\
import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)
"""


def _manifest(folder: Path, attempts: int) -> Path:
    import yaml

    spec = {
        "problem": {"inline": {"reference": REFERENCE}},
        "kernel": {"languages": ["triton"]},
        "model": {"name": "replay:small", "endpoint": {"url": "http://127.0.0.1:1/v1"}},
        "verifiers": {"serve": {"device": "cpu"}},
        "search": {"chains": 2},
        "budget": {"deadlineSeconds": 600, "maxAttempts": attempts},
    }
    search = {"apiVersion": "kernelsearch.dev/v1alpha1", "kind": "KernelSearch", "metadata": {"name": "small"}}
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({**search, "spec": spec}))
    return path


def _script(folder: Path) -> Path:
    """Answers in turn: none, wrong, a cheat, right, and so on round."""
    import yaml

    texts = {"wrong": WRONG, "cheat": CHEAT, "right": RIGHT}
    answers = {name: {"content": f"```python\n{text}```"} for name, text in texts.items()}
    answers["none"] = {"content": "I am thinking."}
    rule = {"name": "all", "answers": ["none", "wrong", "cheat", "right"], "then": "cycle"}
    pace = {"tokensPerSecond": 2000, "firstTokenSeconds": 0.05}
    script = {"schema": 1, "model": "small", "pace": pace, "answers": answers, "rules": [rule], "fallback": "right"}
    path = folder / "replay.yaml"
    path.write_text(yaml.safe_dump(script))
    return path


def _command(folder: Path, attempts: int, *more: str) -> list[str]:
    run = [sys.executable, "-m", "kernelsearch.cli", "run", "-f", str(_manifest(folder, attempts))]
    return [*run, "--replay", str(_script(folder)), "--replay-speed", "2", "--out", str(folder / "out"), *more]


@pytest.fixture(scope="module")
def verifier():
    """One verifier for all runs of this module."""
    command = [sys.executable, "-m", "kernelverify.cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.terminate()


def _archived(folder: Path) -> list[dict]:
    from kernelsearch.search import archive

    return list(archive.read(folder / "out/attempts"))


@pytest.mark.timeout(600)
@pytest.mark.needs("linux")
def test_a_search_goes_through_every_kind_of_verdict_and_keeps_its_best(tmp_path, verifier):
    done = subprocess.run(
        _command(tmp_path, 8, "--verifier-url", verifier), capture_output=True, text=True, timeout=500, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    verdicts = {a["verdict"] for a in _archived(tmp_path)}
    assert {"no_code", "incorrect", "reward_hack", "correct"} <= verdicts
    out = tmp_path / "out"
    assert "ModelNew" in (out / "best/kernel.py").read_text()
    assert "Replay" in (out / "report.html").read_text()
    assert "REPLAY" in done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.needs("linux")
def test_killed_twenty_times_it_loses_only_what_was_in_flight(tmp_path, verifier):
    seed = int(os.environ.get("KERNELSEARCH_TEST_SEED", "7"))
    instants = random.Random(seed)
    totals, bests = [], []
    for _ in range(20):
        process = subprocess.Popen(
            _command(tmp_path, 400, "--verifier-url", verifier, "--json"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        time.sleep(instants.uniform(0.5, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        status = tmp_path / "out/status.json"
        if status.exists():
            facts = json.loads(status.read_text())
            totals.append(facts["attempts"]["total"])
            bests.append(bool(facts.get("best")))

    numbers = [a["attempt"] for a in _archived(tmp_path)]
    assert totals, "no search ever got to its first verdict"
    assert totals == sorted(totals), "a counter went back"
    assert bests == sorted(bests), "a best kernel was lost"
    assert len(numbers) == len(set(numbers)), "an attempt number was used twice"
    assert totals[-1] <= len(numbers) + 20, "a verdict was counted twice"


@pytest.mark.timeout(300)
@pytest.mark.needs("linux")
def test_killing_a_search_leaves_no_process_behind(tmp_path):
    process = subprocess.Popen(_command(tmp_path, 400), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
