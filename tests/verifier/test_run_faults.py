"""A real search whose verifier is killed at each stage of an evaluation or for good, or whose disk is full."""

import asyncio
import json
import re
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import pytest
import small_search
import watched
from small_search import BUILT, SmallSearch
from watched import Door

pytestmark = [pytest.mark.needs("linux"), pytest.mark.timeout(600)]

MOMENTS = {
    "full": [("static",), ("building",), ("building", "checking")],
    "champion": [("timing",)],
}
"""One a submission. A kernel that is built is checked twice: the first time until it asks for its build."""
LONG = f"TABLE = [{'(),' * 25_000}]\n"
"""A fifth of a second of reading, in which a candidate is still `static`."""
LEFT_SECONDS = 20
"""A candidate that was just being forked looks for its referee for ten."""
LAST_SECONDS = 30.0
"""For the last save, the last publication and the last words, on a busy machine; an outage is borne for ten minutes."""
INFRASTRUCTURE = re.compile(r"infra|referee|signal|killed|unavailable|restart|submi|cancel|no answer", re.IGNORECASE)


def built(times: str = "") -> str:
    """A kernel that no cache knows yet."""
    unknown = BUILT.replace("#include <cmath>", f"#include <cmath>\n// {secrets.token_hex()}")
    return unknown.replace("b[i] /= total", f"b[i] /= {times}total")


async def run(search: SmallSearch, url: str) -> tuple[int, str]:
    """Exit code and what was said."""
    command = search.command("--verifier-url", url, "--replay-speed", "50")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


def status(search: SmallSearch) -> dict:
    return json.loads((search.out / "status.json").read_text())


def untouched(search: SmallSearch) -> None:
    """Three attempts with the verdicts that their kernels deserve, and a model that heard of nothing else."""
    records = search.archived()
    attempts = status(search)["attempts"]

    assert [each["verdict"] for each in records] == ["reward_hack", "correct", "incorrect"]
    assert [each["attempt"] for each in records] == [1, 2, 3]
    assert [attempts[name] for name in ("total", "rewardHack", "correct", "incorrect")] == [3, 1, 1, 1]
    assert status(search)["outcome"]["reason"] == "AttemptsExhausted"
    assert [found for each in records for found in INFRASTRUCTURE.findall(each["prompt"])] == []


async def left_of(pids: Iterable[int]) -> list[str]:
    """Command lines of ours that are still there after a while."""
    left = list(pids)
    for _ in range(LEFT_SECONDS):
        left = [pid for pid in left if "kernelverify" in small_search.command_line(pid)]
        if not left:
            break
        await asyncio.sleep(1)
    return [small_search.command_line(pid) for pid in left]


@pytest.fixture
def search(tmp_path) -> SmallSearch:
    """One chain, so that nothing but the evaluation that is meant is hurt."""
    cheat = small_search.CHEAT + LONG
    answers = {"cheat": cheat, "right": built(), "wrong": built("2 * ")}
    return SmallSearch(tmp_path, 3, answers, language="cpp", chains=1)


async def test_a_referee_killed_at_any_stage_costs_the_search_nothing(search):
    killed = []
    async with watched.serving() as verifier:

        async def hurt() -> None:
            killed.append(await verifier.kill_referee())

        async with Door(verifier, MOMENTS, hurt) as door:
            code, said = await run(search, door.url)
            states = [await door.state(submission) for submission in door.hurt.values()]

    assert code == 0, said
    assert set(door.hurt) == {moment for moments in MOMENTS.values() for moment in moments}
    assert [state["stage"] for state in states] == ["done"] * 4
    assert len({referee for referee, *_ in killed}) == 4
    assert await left_of(chain.from_iterable(killed)) == []
    assert max(Counter(each.key for each in door.submissions).values()) == 1
    untouched(search)


async def test_a_verifier_killed_at_any_stage_costs_the_search_nothing(search):
    started = []
    async with watched.serving() as verifier:

        async def hurt() -> None:
            started.extend(await verifier.kill())
            await verifier.start()

        async with Door(verifier, MOMENTS, hurt) as door:
            code, said = await run(search, door.url)

    assert code == 0, said
    assert set(door.hurt) == {moment for moments in MOMENTS.values() for moment in moments}
    times = Counter(each.key for each in door.submissions)
    assert [times[each.key] for each in door.hurt.values()] == [2] * 4
    assert await left_of(started) == []
    untouched(search)


@pytest.mark.parametrize(
    ("level", "deadline", "reason", "code"),
    [("full", 20, "NoCorrectKernel", 1), ("champion", 45, "DeadlineReached", 0)],
    ids=["before a kernel is found", "while the first one is confirmed"],
)
async def test_a_verifier_gone_for_good_holds_the_search_no_longer_than_its_grace(
    tmp_path, level, deadline, reason, code
):
    budget = {"deadlineSeconds": deadline, "gracePeriodSeconds": 3}
    search = SmallSearch(tmp_path, 400, {"right": small_search.RIGHT}, budget=budget)
    async with watched.serving() as verifier, Door(verifier, {level: [("checking",)]}, verifier.kill) as door:
        ended, said = await run(search, door.url)

    seconds, why = re.search(r"([\d.]+) s  ended, (\w+)", said).groups()
    assert len(door.hurt) == 1
    assert (ended, why) == (code, reason), said
    assert deadline + 3 <= float(seconds) < deadline + 3 + LAST_SECONDS
    assert "trouble with the verifier" in said


@pytest.fixture
def little_room(search):
    """A disk of two pages under the archive."""
    attempts = search.out / "attempts"
    attempts.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(attempts)], check=True)
    yield
    subprocess.run(["umount", "--lazy", str(attempts)], check=True)


@pytest.mark.needs("root")
@pytest.mark.usefixtures("little_room")
async def test_a_full_disk_under_the_archive_costs_records_and_is_told_once_for_each(search):
    search = replace(search, attempts=8, answers=small_search.ANSWERS, language="triton")
    async with watched.serving() as verifier:
        code, said = await run(search, verifier.url)

    kept = [each["attempt"] for each in search.archived()]
    lost = re.findall(r"trouble with the archive: attempt (\d+): could .* No space left on device; make room", said)
    assert code == 0, said
    assert kept
    assert lost
    assert sorted([*kept, *map(int, lost)]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (status(search)["attempts"]["total"], status(search)["outcome"]["reason"]) == (8, "AttemptsExhausted")
    assert "ModelNew" in (search.out / "best/kernel.py").read_text()
    assert (search.out / "report.html").exists()
