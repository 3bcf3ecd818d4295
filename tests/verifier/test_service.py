"""The HTTP service with a real referee behind it."""

import asyncio
import os
import signal

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from kernelverify import app, settings
from kernelverify.jobs import Job, Jobs
from kernelverify_api.report import Stage
from kernelverify_api.request import Evaluation, Problem

MODEL = """\
import torch


class {name}(torch.nn.Module):
    def forward(self, x):
        {body}
"""
INPUTS = """

def get_inputs():
    return [torch.randn(64)]
"""
TORCH = MODEL.format(name="ModelNew", body="return x + 1")
HANG = MODEL.format(name="ModelNew", body="while True: pass")
PROBLEM = {"source": MODEL.format(name="Model", body="return x + 1") + INPUTS}


@pytest.fixture
async def client(tmp_path):
    jobs = Jobs(settings.read({"KERNELVERIFY_CACHE": str(tmp_path)}))
    await jobs.start()
    async with TestClient(TestServer(app.make(jobs))) as client:
        yield client
    await jobs.close()


async def _submit(client: TestClient[object, object] | ClientSession, source: str, **more: object) -> str:
    body = {"problem": PROBLEM, "source": source, "options": {"custom_kernel": "optional", "fresh": True}, **more}
    async with client.post("/v1/evaluations", json=body) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["id"]


async def _finished(client, identity: str) -> dict:
    for _ in range(20):
        async with client.get(f"/v1/evaluations/{identity}?wait=30") as response:
            state = await response.json()
        if state["report"] or state["error"]:
            return state
    raise AssertionError(state)


async def _stage(client, identity: str) -> str:
    async with client.get(f"/v1/evaluations/{identity}") as response:
        return (await response.json())["stage"]


@pytest.mark.needs("linux")
async def test_a_right_answer_is_correct(client):
    state = await _finished(client, await _submit(client, TORCH))

    assert state["report"]["status"] == "correct"
    assert state["report"]["integrity"]["sandbox"]["seccomp"] == "on"


@pytest.mark.needs("linux")
async def test_health_and_cancel_answer_while_a_candidate_hangs(client):
    identity = await _submit(client, HANG)
    while await _stage(client, identity) != "checking":  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.1)
    await asyncio.sleep(3)  # from there to its first call

    async with client.get("/healthz") as response:
        assert response.status == 200
    async with client.delete(f"/v1/evaluations/{identity}") as response:
        assert (await response.json())["report"]["status"] == "cancelled"
    state = await _finished(client, await _submit(client, TORCH))
    assert state["report"]["status"] == "correct"


@pytest.mark.needs("linux")
async def test_a_killed_referee_costs_the_candidate_nothing(client):
    jobs = client.app[app.JOBS]
    identity = await _submit(client, TORCH)
    while jobs.lanes[0]._process is None:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    os.kill(jobs.lanes[0]._process.pid, signal.SIGKILL)

    state = await _finished(client, identity)

    assert state["report"]["status"] == "correct"


@pytest.mark.needs("linux")
async def test_a_bad_problem_names_its_line(client):
    state = await _finished(client, await _submit(client, TORCH, problem={"source": "import torch\nclass Model(:\n"}))

    assert state["stage"] == "failed"
    assert state["error"]["field"] == "problem.source:2"


async def test_a_stage_that_is_over_at_once_is_told_all_the_same():
    job = Job("any", Evaluation(problem=Problem(source="x"), source="y"))
    for stage in (Stage.STATIC, Stage.CHECKING, Stage.DONE):
        await job.move(stage)

    assert [stage async for stage in job.stages()] == [Stage.QUEUED, Stage.STATIC, Stage.CHECKING, Stage.DONE]


@pytest.mark.parametrize(
    ("more", "field", "told"),
    [
        ({"optoins": {}}, "optoins", "optoins is {}: Extra inputs are not permitted"),
        ({"options": {"seed": 1 << 64}}, "options.seed", "18446744073709551616: Input should be less than or equal to"),
        ({"options": {"seed": -(1 << 63) - 1}}, "options.seed", "-9223372036854775809: Input should be greater"),
        ({"options": {"seed": "abc"}}, "options.seed", 'options.seed is "abc": Input should be a valid integer'),
        ({"source": "x" * 300_000}, "source", '"xxxxx'),
        ({"source": "\ud800"}, "source", r'source is "\ud800": Input should be'),
    ],
)
async def test_a_bad_request_names_field_value_and_remedy(client, more, field, told):
    async with client.post("/v1/evaluations", json={"problem": PROBLEM, "source": TORCH, **more}) as response:
        body = await response.json()

    assert (response.status, body["field"]) == (400, field)
    assert told in body["error"]
    assert len(body["error"]) < 300


async def test_an_audit_takes_no_seed_that_torch_does_not_take(client):
    async with client.post("/v1/audits", json={"problem": PROBLEM, "seed": 1 << 64}) as response:
        assert response.status == 400
        assert (await response.json())["field"] == "seed"


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"options": {"seed": ' + b"1" * 5000 + b"}}"])
async def test_a_body_that_is_no_json_is_told_so(client, body):
    async with client.post("/v1/evaluations", data=body) as response:
        assert response.status == 400
        assert "the body is no JSON" in (await response.json())["error"]


@pytest.mark.parametrize("wait", ["abc", "-1", "nan", ""])
async def test_a_bad_wait_names_value_and_remedy(client, wait):
    job = await client.app[app.JOBS].submit(Evaluation(problem=Problem(source="x"), source="y"))

    async with client.get(f"/v1/evaluations/{job.id}", params={"wait": wait}) as response:
        body = await response.json()

    assert (response.status, body["field"]) == (400, "wait")
    assert f'wait is "{wait}": write seconds from 0 to 60' in body["error"]


async def test_an_unknown_job_is_not_found(client):
    async with client.get("/v1/evaluations/absent") as response:
        assert response.status == 404


async def test_metrics_parse(client):
    from prometheus_client.parser import text_string_to_metric_families

    async with client.get("/metrics") as response:
        families = {f.name for f in text_string_to_metric_families(await response.text())}

    assert "kernelsearch_verifier_queue_length" in families
