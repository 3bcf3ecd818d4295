"""The replay server as its clients see it, over real HTTP: shapes, pace, honesty about what it is, and the process."""

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest
import yaml

from kernelsearch.replay import server
from kernelsearch.replay.chooser import Chooser
from kernelsearch.replay.script import Pace, ThoughtField
from replayed import CONTENT, TEXT, THOUGHT, faulty, small
from waiting import until

ASK = {"model": "deepseek-ai/DeepSeek-R1", "messages": [{"role": "user", "content": "Write a kernel"}]}


async def post(url: str, body: object = None, **headers: str) -> tuple[int, dict]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json=ASK if body is None else body, headers=headers) as response,
    ):
        return response.status, await response.json()


async def stream(url: str, **more) -> list[dict | str]:
    """The events of a streamed answer."""
    body = {**ASK, "stream": True, "stream_options": {"include_usage": True}, **more}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", json=body) as response:
        lines = (await response.text()).split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line]
    return [text if text == "[DONE]" else json.loads(text) for text in data]


def serve(of=None, **settings):
    return server.serving(of or small(), server.Settings(port=0, **settings))


async def test_an_answer_in_one_piece_has_thought_content_and_usage_apart():
    async with serve() as url:
        status, body = await post(url)

    message = body["choices"][0]["message"]
    usage = body["usage"]
    assert status == 200
    assert (message["content"], message["reasoning_content"]) == (CONTENT, THOUGHT)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


async def test_a_streamed_answer_ends_with_finish_usage_and_done():
    async with serve() as url:
        *deltas, last, usage, done = await stream(url)

    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in deltas)
    thought = "".join(event["choices"][0]["delta"].get("reasoning_content") or "" for event in deltas)
    assert (text, thought) == (CONTENT, THOUGHT)
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(deltas) - 1
    assert done == "[DONE]"


async def test_usage_is_streamed_only_when_asked_for():
    async with serve() as url:
        events = await stream(url, stream_options=None)

    assert not any(isinstance(event, dict) and event.get("usage") for event in events)


@pytest.mark.parametrize("field", list(ThoughtField))
async def test_the_thought_stands_where_the_script_says(field: ThoughtField):
    async with serve(small(thought_field=field)) as url:
        _, body = await post(url)

    message = body["choices"][0]["message"]
    separate = {"reasoning", "reasoning_content"} & set(message)
    assert separate == ({field.value} if not field.value.startswith("inline") else set())
    assert ("</think>" in message["content"]) == (not separate)
    assert message["content"].startswith("<think>") == (field is ThoughtField.INLINE)


async def test_it_is_named_replay_wherever_a_model_is_named():
    async with serve() as url:
        _, body = await post(url)
        events = await stream(url)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/models") as response:
            models = await response.json()
        async with aiohttp.ClientSession() as session, session.get(f"{url[:-3]}/health") as response:
            health = await response.json()

    named = [body["model"], models["data"][0]["id"], health["model"], *(event["model"] for event in events[:-1])]
    assert set(named) == {"replay:small"}


async def test_max_tokens_truncates_with_finish_reason_length():
    async with serve() as url:
        _, body = await post(url, {**ASK, "max_tokens": 3})

    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    "body", [[], {}, {"messages": []}, {"messages": "hi"}, {"messages": ["hi"]}, {**ASK, "max_tokens": -1}]
)
async def test_a_bad_request_is_a_400_with_a_message(body: object):
    async with serve() as url:
        status, answer = await post(url, body)

    assert status == 400
    assert "must be" in answer["error"]["message"]


async def test_without_the_key_it_is_a_401():
    async with serve(api_key="right") as url:
        assert (await post(url))[0] == 401
        assert (await post(url, Authorization="Bearer right"))[0] == 200


async def test_the_pace_is_the_scripts():
    async with serve(small(pace=Pace(tokens_per_second=50, first_token_seconds=0.5))) as url:
        start = time.monotonic()
        await stream(url)

    assert time.monotonic() - start > 0.5 + 30 / 50


async def test_a_speed_divides_the_scripts_hours():
    async with serve(small(pace=Pace(tokens_per_second=0.01, first_token_seconds=3600)), speed=1e5) as url:
        events = await stream(url)

    assert events[-1] == "[DONE]"


@pytest.fixture
def turns(monkeypatch) -> list[str]:
    """What the chooser is asked for, as it happens: `choose` for an answer that begins, `give_back`."""
    seen: list[str] = []

    def watch(name: str) -> None:
        original = getattr(Chooser, name)

        def noted(*args):
            seen.append(name)
            return original(*args)

        monkeypatch.setattr(Chooser, name, noted)

    watch("choose")
    watch("give_back")
    return seen


async def test_content_in_parts_and_a_long_prompt_are_read():
    async with serve() as url:
        parts = [{"type": "text", "text": "x" * 900_000}]
        status, body = await post(url, {**ASK, "messages": [{"role": "user", "content": parts}]})

    assert status == 200
    assert body["usage"]["prompt_tokens"] > 100_000


async def test_faults_of_the_script_strike_without_a_stream_too():
    async with serve(small(**faulty("rate_limit:requests=1,retry_after=7", "server_error:requests=2"))) as url:
        limited, failed, well = [await post(url) for _ in range(3)]

    assert (limited[0], failed[0], well[0]) == (429, 500, 200)


async def test_an_answer_that_its_reader_left_is_given_to_the_next(turns):
    two = yaml.safe_load(TEXT)
    two["answers"]["second"] = {"content": "second"}
    two["rules"] = [{"name": "r", "answers": ["only", "second"]}]
    of = server.Script.model_validate(two)
    async with serve(of, **faulty("stall:requests=1,after=5")) as url:
        reading = asyncio.create_task(stream(url))
        await until(lambda: turns == ["choose"])
        reading.cancel()
        await until(lambda: turns == ["choose", "give_back"])
        events = await stream(url)

    assert "reasoning_content" in str(events)


def test_the_process_says_that_it_is_a_replay_and_ends_on_sigterm(tmp_path: Path):
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    code = "import sys; from pathlib import Path; from kernelsearch.replay import server; "
    code += "server.run(Path(sys.argv[1]), port=0, echo=lambda line: print(line, flush=True))"

    async def run() -> tuple[str, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(path), stdout=asyncio.subprocess.PIPE
        )
        line = (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGTERM)
        return line, await process.wait()

    line, code = asyncio.run(run())

    assert "replay:small listens on http://127.0.0.1:" in line
    assert "not a language model" in line
    assert code == 0
