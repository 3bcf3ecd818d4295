"""The model client against the replay model over real HTTP, and its accounting on chunks of every shape."""

import asyncio
import json
import ssl
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from kernelsearch.clients import errors
from kernelsearch.clients.draft import Draft
from kernelsearch.clients.model import (
    Endpoint,
    ModelClient,
    Profile,
    Sampling,
    key_from_environment,
)
from kernelsearch.replay.script import Pace, ThoughtField
from kernelsearch.search.ports import Finish, ModelUnavailableError
from replayed import BRIEF, CONTENT, THOUGHT, UNHURRIED, RealClock, asked, small, soon


def slow(tokens_per_second: float = 20.0) -> Pace:
    return Pace(tokens_per_second=tokens_per_second, first_token_seconds=0.01)


@pytest.mark.parametrize("field", [ThoughtField.REASONING, ThoughtField.REASONING_CONTENT])
async def test_a_separated_thought_is_kept_apart_in_either_field(field: ThoughtField):
    async with asked(small(thought_field=field)) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.reasoning == THOUGHT
    assert answer.content == CONTENT
    assert answer.finish is Finish.STOP


@pytest.mark.parametrize(
    ("field", "start"), [(ThoughtField.INLINE, "<think>\n"), (ThoughtField.INLINE_UNOPENED, THOUGHT[:8])]
)
async def test_a_thought_inside_the_content_stays_there_for_the_extraction(field: ThoughtField, start: str):
    async with asked(small(thought_field=field)) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.reasoning == ""
    assert answer.content.startswith(start)
    assert answer.content.endswith(f"</think>\n\n{CONTENT}")


async def test_the_answer_names_the_model_as_the_server_does():
    async with asked() as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.model == "replay:small"


async def test_usage_is_the_servers_own_count():
    async with asked() as client:
        answer = await client.propose("Write a kernel", soon())

    assert not answer.tokens.estimated
    assert answer.tokens.prompt > 0
    assert answer.tokens.completion > answer.tokens.reasoning > 0


async def test_tokens_are_reported_while_they_come():
    seen: list[int] = []
    async with asked() as client:
        answer = await client.propose("Write a kernel", soon(), seen.append)

    assert seen == sorted(seen)
    assert len(seen) > 10
    assert seen[-1] == pytest.approx(answer.tokens.completion, rel=0.3)


async def test_an_answer_that_cannot_end_before_the_deadline_is_cut_and_its_tokens_are_estimated():
    async with asked(small(pace=slow(2)), patience=UNHURRIED) as client:
        answer = await client.propose("Write a kernel", soon(4))

    assert answer.finish is Finish.CUT
    assert answer.reasoning
    assert THOUGHT.startswith(answer.reasoning)
    assert answer.tokens.estimated
    assert answer.tokens.completion > 0
    assert answer.tokens.reasoning == answer.tokens.completion
    assert answer.seconds < 12


async def test_after_a_deadline_nothing_is_asked():
    async with asked() as client:
        answer = await client.propose("Write a kernel", soon(-1))

    assert answer.finish is Finish.CUT
    assert answer.content == ""
    assert answer.tokens.completion == answer.tokens.prompt == 0


async def test_max_tokens_ends_an_answer_as_length():
    async with asked(sampling=Sampling(max_tokens=5)) as client:
        answer = await client.propose("Write a kernel", soon())

    assert answer.finish is Finish.LENGTH
    assert answer.tokens.completion == 5


async def test_many_chains_use_one_client_at_once():
    async with asked(small(pace=slow(10)), patience=UNHURRIED) as client:
        start = time.monotonic()
        answers = await asyncio.gather(*(client.propose(f"chain {n}", soon()) for n in range(32)))

    assert {answer.content for answer in answers} == {CONTENT}
    assert time.monotonic() - start < 40  # one after the other: a hundred and more


async def test_cancelling_a_chain_leaves_the_others_alone():
    async with asked(small(pace=slow(100)), patience=UNHURRIED) as client:
        first = asyncio.create_task(client.propose("first", soon(), lambda _: first.cancel()))
        second = asyncio.create_task(client.propose("second", soon()))

        assert (await second).content == CONTENT
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_an_error_in_the_callers_display_is_not_taken_for_the_models():
    def broken(_: int) -> None:
        raise ZeroDivisionError

    async with asked() as client:
        with pytest.raises(ZeroDivisionError):
            await client.propose("Write a kernel", soon(), broken)


# ---- what is sent ----


class Recorder:
    """An OpenAI endpoint that keeps what it is asked and answers with the given chunks."""

    def __init__(self, *chunks: dict | str, status: int = 200) -> None:
        self.chunks = chunks
        self.status = status
        self.ssl_context: ssl.SSLContext | None = None
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json() if request.can_read_body else {})
        self.headers.append(dict(request.headers))
        if self.status != 200:
            return web.json_response({"error": {"message": self.chunks[0], "code": self.status}}, status=self.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in self.chunks:
            text = chunk if isinstance(chunk, str) else json.dumps(chunk)
            await response.write(f"data: {text}\n\n".encode())
        return response

    async def __aenter__(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.handle)
        app.router.add_get("/v1/models", self.handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.ssl_context).start()
        return f"{'https' if self.ssl_context else 'http'}://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    async def __aexit__(self, *_) -> None:
        await self.runner.cleanup()


def delta(finish: str | None = None, **fields) -> dict:
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


async def ask(recorder: Recorder, *, api_key=None, prompt: str = "hello", **options):
    async with (
        recorder as url,
        ModelClient(Endpoint(url, "m", api_key), RealClock(), patience=UNHURRIED, **options) as client,
    ):
        return await client.propose(prompt, soon())


async def test_the_request_follows_r1s_habits():
    recorder = Recorder(delta("stop", content="hi"), "[DONE]")
    await ask(recorder)

    body = recorder.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.6, 0.95, 32768)
    assert body["stream_options"] == {"include_usage": True}
    assert body["stream"] is True


async def test_a_profile_adds_a_system_prompt_and_fields():
    recorder = Recorder(delta("stop", content="hi"), "[DONE]")
    await ask(recorder, profile=Profile(system_prompt="Be brief.", extra_body={"top_k": 20}))

    assert recorder.bodies[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert recorder.bodies[0]["top_k"] == 20


async def test_the_key_travels_as_a_bearer_and_is_asked_for_each_time():
    recorder = Recorder(delta("stop", content="hi"), "[DONE]")
    keys = iter(["one\n", "two"])
    async with recorder as url, ModelClient(Endpoint(url, "m", lambda: next(keys)), RealClock()) as client:
        await client.propose("a", soon())
        await client.propose("b", soon())

    assert [headers["Authorization"] for headers in recorder.headers] == ["Bearer one", "Bearer two"]


async def test_another_services_key_in_the_environment_is_not_sent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    recorder = Recorder(delta("stop", content="hi"), "[DONE]")
    await ask(recorder)

    assert "secret" not in str(recorder.headers)


async def test_a_key_from_the_environment_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KERNELSEARCH_SECRET_R1_KEY", raising=False)

    with pytest.raises(errors.ModelRefusedError, match="KERNELSEARCH_SECRET_R1_KEY"):
        await ask(Recorder(), api_key=key_from_environment("KERNELSEARCH_SECRET_R1_KEY"))


async def test_a_key_that_cannot_be_one_is_refused_without_showing_it():
    with pytest.raises(errors.ModelRefusedError) as caught:
        await ask(Recorder(), api_key=lambda: "two words\nand a line")

    assert "words" not in str(caught.value)


# ---- what comes back ----


async def test_a_server_that_sends_the_thought_in_both_fields_is_read_once():
    answer = await ask(Recorder(delta(reasoning="so", reasoning_content="so"), delta("stop", content="hi"), "[DONE]"))

    assert (answer.reasoning, answer.content) == ("so", "hi")


async def test_a_server_that_reports_no_usage_is_estimated():
    answer = await ask(Recorder(delta(reasoning="t" * 350), delta("stop", content="c" * 350), "[DONE]"))

    assert answer.tokens.estimated
    assert answer.tokens.completion == 200
    assert answer.tokens.reasoning == 100


async def test_a_usage_without_reasoning_tokens_is_split_by_characters():
    usage = {"id": "1", "model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 90}}
    answer = await ask(Recorder(delta("stop", content="tttttttt</think>cccc"), usage, "[DONE]"))

    assert answer.tokens.completion == 90
    assert answer.tokens.reasoning == 72
    assert not answer.tokens.estimated


async def test_an_answer_whose_end_was_seen_survives_a_missing_done():
    answer = await ask(Recorder(delta(content="hi"), delta("stop"), "this is not JSON"))

    assert answer.content == "hi"
    assert answer.finish is Finish.STOP
    assert answer.tokens.estimated


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "apiKeySecretRef"),
        (403, "apiKeySecretRef"),
        (404, r"spec\.model\.name \('m'\).*usually ends in /v1"),
        (400, r"lower spec\.model\.sampling\.maxTokens"),
        (422, "does not take this request"),
    ],
)
async def test_what_another_try_cannot_help_is_refused_with_its_remedy(status: int, remedy: str):
    recorder = Recorder("the server's own words", status=status)

    with pytest.raises(errors.ModelRefusedError, match=rf"(?s)HTTP {status}.*own words.*{remedy}"):
        await ask(recorder)
    assert len(recorder.bodies) == 1


async def test_a_key_that_the_server_quotes_is_not_repeated():
    with pytest.raises(errors.ModelRefusedError) as caught:
        await ask(Recorder("wrong key: sk-12345", status=401), api_key=lambda: "sk-12345")

    assert "sk-12345" not in str(caught.value)


async def test_an_error_inside_the_stream_is_tried_again():
    recorder = Recorder(delta(content="hi"), {"error": {"message": "engine died", "code": 500}})

    with pytest.raises(ModelUnavailableError, match="engine died"):
        await ask(recorder)
    assert len(recorder.bodies) > 1


async def test_a_refusal_inside_the_stream_is_refused():
    recorder = Recorder({"error": {"message": "context length exceeded", "code": 400}})

    with pytest.raises(errors.ModelRefusedError, match="context length exceeded"):
        await ask(recorder)
    assert len(recorder.bodies) == 1


@pytest.mark.parametrize(
    "chunks",
    [
        ("not JSON",),
        ("[1, 2]",),
        ("null",),
        ({"choices": "surprise"},),
        ({"choices": [{"delta": None, "finish_reason": None}]},),
        ({"choices": [{"delta": {"content": 5}, "finish_reason": None}]},),
        (),
    ],
    ids=["text", "list", "null", "choices", "delta", "content", "empty"],
)
async def test_a_stream_of_nonsense_never_leaks_as_a_library_error(chunks: tuple):
    with pytest.raises(ModelUnavailableError, match="GET /models must answer"):
        await ask(Recorder(*chunks))


async def test_no_server_at_all_ends_as_unavailable_in_time():
    start = time.monotonic()
    async with ModelClient(Endpoint("http://127.0.0.1:9/v1", "m"), RealClock(), patience=BRIEF) as client:
        with pytest.raises(ModelUnavailableError, match=r"http://127\.0\.0\.1:9/v1 failed \d+ time"):
            await client.propose("hello", soon(60))

    assert time.monotonic() - start < 40


async def test_giving_up_tells_since_when_and_a_refusal_that_no_retry_helps():
    start = time.monotonic()
    async with ModelClient(Endpoint("http://127.0.0.1:9/v1", "m"), RealClock(), patience=BRIEF) as client:
        with pytest.raises(ModelUnavailableError) as down:
            await client.propose("hello", soon(60))
    with pytest.raises(ModelUnavailableError) as refused:
        await ask(Recorder("no", status=401))

    assert start <= down.value.since <= start + 30
    assert down.value.retry
    assert not refused.value.retry


async def test_the_names_of_the_models_are_listed():
    async with asked() as client:
        assert await client.models() == ("replay:small",)


async def test_listing_models_where_none_are_is_an_infrastructure_error():
    async with ModelClient(Endpoint("http://127.0.0.1:9/v1", "m"), RealClock()) as client:
        with pytest.raises(ModelUnavailableError):
            await client.models()


@pytest.mark.parametrize("url", ["localhost:8000/v1", "", "ftp://host/v1", "http:///v1"])
def test_a_url_that_is_none_is_refused_with_the_form_to_write(url: str):
    with pytest.raises(ValueError, match="http://HOST:PORT/v1"):
        Endpoint(url, "m")


@pytest.mark.parametrize("pem", ["no certificate", "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"])
def test_certificates_that_cannot_be_read_name_their_field(pem: str):
    with pytest.raises(ValueError, match="caConfigMapRef must hold PEM"):
        ModelClient(Endpoint("https://host/v1", "m", ca_pem=pem), RealClock())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that no system trusts, and its key."""
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", str(key), "-out", str(pem)], check=True, capture_output=True)
    return pem, key


@pytest.mark.parametrize(("trust", "taken"), [("ca", True), ("insecure", True), ("system", False)])
async def test_a_private_certificate_is_taken_only_when_told(certificate, trust: str, taken: bool):
    pem, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    recorder = Recorder(delta("stop", content="hi"), "[DONE]")
    recorder.ssl_context = context
    async with recorder as url:
        ca = pem.read_text() if trust == "ca" else None
        endpoint = Endpoint(url, "m", ca_pem=ca, insecure=trust == "insecure")
        async with ModelClient(endpoint, RealClock(), patience=UNHURRIED) as client:
            if taken:
                assert (await client.propose("hello", soon())).content == "hi"
            else:
                with pytest.raises(ModelUnavailableError, match=r"(?i)certificate"):
                    await client.propose("hello", soon())


def test_tokens_are_counted_by_deltas_or_by_characters_whichever_is_more():
    one_a_token = Draft("p", "m", ("reasoning",), RealClock())
    many_a_token = Draft("p", "m", ("reasoning",), RealClock())

    for _ in range(10):
        one_a_token.add(_chunk("x"))
    many_a_token.add(_chunk("x" * 350))

    assert one_a_token.completion == 10
    assert many_a_token.completion == 100


def _chunk(content: str) -> SimpleNamespace:
    choice = SimpleNamespace(delta=SimpleNamespace(content=content), finish_reason=None)
    return SimpleNamespace(model="m", usage=None, choices=[choice])
