"""What happens to a job when things go wrong around it: it ends, always, and others go on."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelverify import ipc, settings
from kernelverify.host import verdict
from kernelverify.jobs import FullError, Jobs, Lane, LaneError
from kernelverify_api.report import Stage, Status
from kernelverify_api.request import Evaluation

PROBLEM = {"source": "class Model: pass"}
HANG_WITH_CHILDREN = """\
import ctypes
import os
import time

import torch


class ModelNew(torch.nn.Module):
    def forward(self, x):
        for _ in range(2):
            if os.fork() == 0:
                ctypes.CDLL(None).prctl(15, b"%s", 0, 0, 0)
                while True:
                    time.sleep(60)
        while True:
            time.sleep(60)
"""
REFERENCE = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x + 1


def get_inputs():
    return [torch.randn(8)]
"""


class Scripted(Lane):
    """A lane whose referee gives written answers; an exception among them is raised."""

    def __init__(self, *answers: object) -> None:
        super().__init__("cpu", 1)
        self.answers, self.asked, self.open = list(answers), [], asyncio.Event()
        self.open.set()

    async def start(self) -> None:
        self.ready = True

    async def _ask(self, _message, _seconds, job=None):
        await self.open.wait()
        self.asked.append(job.asked.client)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _report(status: Status = Status.CORRECT) -> dict[str, object]:
    made = verdict.ended("x", status, "as written", Evaluation(problem=PROBLEM, source="s").options.level)
    return {"event": "report", "report": made.model_dump(mode="json", by_alias=True)}


@pytest.fixture
def jobs(tmp_path):
    """A function that serves jobs on a lane; closed at the end of the test."""
    served: list[Jobs] = []

    async def serve(lane: Lane, **environment: str) -> Jobs:
        made = Jobs(settings.read({"KERNELVERIFY_CACHE": str(tmp_path / "cache"), **environment}), [lane])
        served.append(made)
        await made.start()
        return made

    async def close() -> None:
        for made in served:
            await made.close()

    serve.close = close
    return serve


@pytest.fixture(autouse=True)
async def _closed(jobs):
    yield
    await jobs.close()


def _asked(source: str = "s", **more: object) -> Evaluation:
    return Evaluation(problem=PROBLEM, source=source, **more)


async def _ended(jobs: Jobs, asked: Evaluation) -> tuple[Stage, str]:
    job = await jobs.submit(asked)
    await job.wait(20)
    return job.stage, job.report.summary if job.report else ""


@pytest.mark.parametrize(
    "nonsense",
    [
        *(
            {"event": "report"},
            {"event": "report", "report": {"status": "wonderful"}},
            {"event": "report", "report": 3},
        ),
        *({"event": "build", "request": 7}, {"event": "problem_error"}, {"event": "song"}, {}),
    ],
    ids=str,
)
async def test_a_malformed_answer_is_tried_once_more_and_then_is_infrastructure(jobs, nonsense):
    once, always = await jobs(Scripted(nonsense, _report())), await jobs(Scripted(nonsense))

    assert (await _ended(once, _asked()))[0] is Stage.DONE
    stage, summary = await _ended(always, _asked())

    assert stage is Stage.INFRA_ERROR
    assert "malformed" in summary or "song" in summary


async def test_a_mistake_of_the_verifier_itself_ends_the_job_and_not_the_lane(jobs):
    served = await jobs(Scripted(ZeroDivisionError("ours"), ZeroDivisionError("ours"), _report()))

    first = await _ended(served, _asked("a"))
    second = await _ended(served, _asked("b"))

    assert first == (Stage.INFRA_ERROR, "ZeroDivisionError: ours")
    assert second[0] is Stage.DONE


async def test_a_build_that_fails_for_our_own_reasons_is_infrastructure(jobs, monkeypatch):
    served = await jobs(Scripted({"event": "build", "request": {"key": "k"}}))

    async def full(_message):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(served.builder, "build", full)
    stage, summary = await _ended(served, _asked())

    assert stage is Stage.INFRA_ERROR
    assert "No space left" in summary


@pytest.mark.needs("linux")
async def test_no_room_for_a_referee_is_said_and_passes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    lane = Lane("cpu", 1)

    with pytest.raises(LaneError, match="cannot start a referee"):
        await lane.start()
    (tmp_path / "not there").mkdir()
    await lane.start()

    assert lane.ready
    await lane.kill()


@pytest.mark.parametrize("error", [LaneError("no room"), ValueError("no room")], ids=type)
async def test_where_no_lane_starts_nobody_waits_for_ever(jobs, monkeypatch, error):
    class Lame(Scripted):
        async def start(self) -> None:
            raise error

    monkeypatch.setattr("kernelverify.jobs.PAUSE_S", 0.01)
    served = await jobs(Lame(_report()))

    assert await _ended(served, _asked()) == (Stage.INFRA_ERROR, "no lane starts: no room")


async def test_clients_take_turns_and_each_keeps_its_order(jobs):
    lane = Scripted(_report())
    lane.open.clear()
    served = await jobs(lane)
    asked = [_asked(f"{client}{n}", client=client) for client in ("greedy", "modest") for n in range(3)]
    submitted = [await served.submit(a) for a in asked]

    lane.open.set()
    for job in submitted:
        await job.wait(20)

    assert lane.asked[:4] in (["greedy", "modest"] * 2, ["greedy", "greedy", "modest", "greedy"])


async def test_a_full_queue_refuses(jobs):
    lane = Scripted(_report())
    lane.open.clear()
    served = await jobs(lane, KERNELVERIFY_QUEUE="2")
    await served.submit(_asked("first"))
    assert await _eventually(lambda: not served.queued), "it never left the queue for the lane"
    for name in ("second", "third"):
        await served.submit(_asked(name))

    with pytest.raises(FullError, match="2 jobs wait, at most 2"):
        await served.submit(_asked("fourth"))


async def test_a_job_ends_at_its_deadline_even_in_the_queue(jobs):
    lane = Scripted(_report())
    lane.open.clear()
    served = await jobs(lane)
    await served.submit(_asked("first"))

    stage, summary = await _ended(served, _asked("second", deadline_s=0.05))

    assert (stage, summary) == (Stage.CANCELLED, "its deadline has passed")


async def test_identical_submissions_share_one_run_unless_fresh(jobs):
    lane = Scripted(_report())
    served = await jobs(lane)
    fresh = _asked(options={"fresh": True})

    shared = [await served.submit(_asked(client=c)) for c in "ab"]
    apart = [await served.submit(fresh) for _ in range(2)]

    assert shared[0] is shared[1]
    assert apart[0] is not apart[1]


async def test_the_same_key_of_the_same_client_is_the_same_job(jobs):
    served = await jobs(Scripted(_report()))
    asked = [_asked(f"{n}", client=c, idempotency_key="k", options={"fresh": True}) for n, c in enumerate("aab")]

    one, again, other = [await served.submit(a) for a in asked]

    assert one is again
    assert one is not other


async def test_what_infrastructure_spoilt_is_judged_anew(jobs):
    served = await jobs(Scripted(ipc.Closed("gone"), ipc.Closed("gone"), _report()))

    spoilt = await _ended(served, _asked())
    again = await _ended(served, _asked())

    assert (spoilt[0], again[0]) == (Stage.INFRA_ERROR, Stage.DONE)


@pytest.mark.needs("linux")
@pytest.mark.timeout(180)
async def test_with_a_killed_referee_the_children_of_its_candidate_die(jobs):
    name = f"left-{os.getpid()}"
    lane = Lane("cpu", 1)
    served = await jobs(lane)
    job = await served.submit(
        Evaluation(
            problem={"source": REFERENCE}, source=HANG_WITH_CHILDREN % name, options={"custom_kernel": "optional"}
        )
    )
    before = await _eventually(lambda: (found := set(_named(name))) and len(found) == 2 and found)
    assert before, "the candidate never came to fork"

    os.kill(lane._process.pid, signal.SIGKILL)

    assert await _eventually(lambda: not before & set(_named(name)))
    await served.cancel(job)
    assert await _eventually(lambda: not set(_named(name)))


async def _eventually(look, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:  # noqa: ASYNC110 - the world tells no Event
        await asyncio.sleep(0.02)
    return found


def _named(name: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                yield int(entry.name)
        except OSError:
            continue
