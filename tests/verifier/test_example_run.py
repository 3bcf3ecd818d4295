"""The attention example as its first lines say: the command, a replay, a verifier that it starts itself."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernelsearch.search import archive
from replayed import EXAMPLES

DEADLINE, GRACE, LAST = 10, 60, 30.0
"""Seconds: ours, the manifest's, and what a search may take for its last words."""


def command(out: Path, deadline: int, *more: str) -> list[str]:
    replay = ["--replay", str(EXAMPLES / "replay/attention.yaml"), "--replay-speed", "20"]
    run = [sys.executable, "-m", "kernelsearch.cli", "run", "-f", str(EXAMPLES / "attention.yaml")]
    return [*run, *replay, "--out", str(out), "--deadline", str(deadline), *more]


def found(out: Path) -> list[dict]:
    return [each for each in archive.read(out / "attempts") if each["verdict"] == "correct"]


@pytest.mark.quiet
@pytest.mark.needs("linux")
@pytest.mark.timeout(900)
def test_attention_ends_by_its_deadline_and_goes_on_to_a_kernel_timed_against_eager_and_flex(tmp_path):
    done = subprocess.run(command(tmp_path, DEADLINE), capture_output=True, text=True, check=False)

    seconds = float(re.search(r"([\d.]+) s  ended, ", done.stdout)[1])
    assert DEADLINE <= seconds < DEADLINE + GRACE + LAST
    assert done.returncode == (0 if found(tmp_path) else 1), done.stdout + done.stderr

    with subprocess.Popen(command(tmp_path, 300, "--json"), stdout=subprocess.PIPE, text=True) as process:
        events = [json.loads(line)["event"] for line in _until_best(process)]

    record = next(each for each in found(tmp_path) if each["best"])
    assert process.returncode == 0, events
    assert set(record["full"]["timing"]["baselines"]) == {"eager", "flexAttention"}
    assert record["answer"]["model"] == "replay:attention"
    assert "no language model was asked" in (tmp_path / "report.html").read_text()
    assert "--baseline eager --baseline flexAttention" in (tmp_path / "best/REPRODUCE.md").read_text()


def _until_best(process: subprocess.Popen) -> list[str]:
    """What it says; asked to end once it has a best kernel."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if json.loads(line)["event"] == "best_improved":
            process.send_signal(signal.SIGINT)
    return lines
