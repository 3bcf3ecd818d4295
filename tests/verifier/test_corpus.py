"""Honest kernels are correct, wrong ones get their verdict, cheats are never correct.

The real command judges each group of kernels that share a problem and options; one report a line comes back.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import corpus
import pytest

KERNELS = corpus.kernels()
INFRASTRUCTURE = {"infra_error", "cancelled"}
EXIT = {"correct": 0}


@cache
def _judged(problem: Path, arguments: tuple[str, ...]) -> tuple[dict[Path, dict], int]:
    """Reports by candidate, and the exit code, of one command over all kernels with this problem and these options."""
    paths = [k.path for k in KERNELS if (k.problem, k.arguments) == (problem, arguments)]
    command = [sys.executable, "-m", "kernelverify.cli", "check", *map(str, paths)]
    done = subprocess.run(
        [*command, "--reference", str(problem), *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, "COLUMNS": "120"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths), f"{len(lines)} reports for {len(paths)} kernels: {done.stderr[-2000:]}"
    return dict(zip(paths, map(json.loads, lines), strict=True)), done.returncode


@pytest.mark.timeout(1500)
@pytest.mark.needs("linux")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_gets_its_verdict(kernel):
    reports, _ = _judged(kernel.problem, kernel.arguments)
    report = reports[kernel.path]

    assert report["status"] in kernel.expected, report["summary"]


@pytest.mark.timeout(1500)
@pytest.mark.needs("linux")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_report_is_clean_and_bounded(kernel):
    reports, _ = _judged(kernel.problem, kernel.arguments)
    text = json.dumps(reports[kernel.path], ensure_ascii=False)

    assert len(text.encode()) <= 256 * 1024
    assert not [c for c in text if ord(c) < 32 or 0x7F <= ord(c) < 0xA0]


@pytest.mark.timeout(1500)
@pytest.mark.needs("linux")
def test_the_exit_code_is_the_worst_verdicts():
    for problem, arguments in {(k.problem, k.arguments) for k in KERNELS}:
        reports, code = _judged(problem, arguments)
        verdicts = {r["status"] for r in reports.values()}

        assert code == (3 if verdicts & INFRASTRUCTURE else int(verdicts != {"correct"})), verdicts


def test_the_corpus_is_as_large_as_promised():
    count = Counter(k.path.parent.name for k in KERNELS)

    assert count["correct"] >= 15
    assert count["wrong"] >= 15
    assert count["cheats"] >= 20


def test_a_kernel_has_one_verdict_or_a_reason_for_more():
    assert [k.name for k in KERNELS if (len(k.expected) > 1) != bool(k.because)] == []


def test_no_cheat_may_be_expected_correct():
    assert not [k.name for k in KERNELS if k.path.parent.name != "correct" and "correct" in k.expected]
