"""Asks a model over the OpenAI API: any server that speaks it, DeepSeek-R1's habits by default.

Streams, so that an answer can be cut at the deadline and its tokens shown while they come. What is transient (429,
5xx, refused or dropped connections, a stream that stalls) is tried again until the deadline or until `give_up_s` of
failures; what is not (a wrong key, name or request) is refused at once with the remedy. One client serves all chains.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import openai

from kernelsearch.clients import errors
from kernelsearch.clients.draft import Draft
from kernelsearch.search.ports import Answer, Clock, Finish, ModelUnavailableError, Tokens

CONNECT_S = 10.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
Key = Callable[[], str]
"""Gives the API key; asked before each request, since a mounted Secret may be renewed."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model is."""

    url: str
    """Base URL, usually ending in `/v1`."""
    model: str
    api_key: Key | None = None
    ca_pem: str | None = None
    """Certificates to trust, PEM; absent: the system's."""
    insecure: bool = False
    """Do not verify the server's certificate."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"the model's URL is {self.url!r}; write it with scheme and host, as http://HOST:PORT/v1")


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. DeepSeek's advice for R1; below 16k tokens its thought is often cut off."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32768


@dataclass(frozen=True)
class Profile:
    """How models differ behind the same API. The default is R1's: everything in the user's turn."""

    system_prompt: str = ""
    thought_fields: tuple[str, ...] = ("reasoning", "reasoning_content")
    """Fields of a delta that may hold the thought; the first that is there counts (some servers send both)."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, as the server documents them."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    first_token_s: float = 180.0
    """A full server queues requests; R1 reads a long prompt in seconds."""
    stall_s: float = 60.0
    """Without a token for so long, the stream counts as dead."""
    give_up_s: float = 60.0
    """Failing for so long, the call gives up. The loop then shows the trouble, and calls again for as long as
    `budget.unavailableSeconds` allows."""
    backoff: errors.Backoff = field(default_factory=errors.Backoff)


def key_from_environment(variable: str) -> Key:
    """Read the API key from an environment variable, at each request."""

    def read() -> str:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise errors.ModelRefusedError(f"the API key is missing: set the environment variable {variable}")
        return value

    return read


class ModelClient:
    """Satisfies `search.ports.Proposer`. Use as an async context manager, or call `close`."""

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Clock,
        *,
        sampling: Sampling | None = None,
        profile: Profile | None = None,
        patience: Patience | None = None,
        random: Random | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._sampling = sampling or Sampling()
        self._profile = profile or Profile()
        self._patience = patience or Patience()
        self._random = random or Random()  # noqa: S311 - jitter
        self._client = _connect(endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def models(self) -> tuple[str, ...]:
        """Names of the models that the server offers. One try: raises ModelUnavailableError."""
        try:
            with self._translated():
                page = await _within(CONNECT_S, self._client.models.list(extra_headers=self._headers()), "/models")
                return tuple(str(model.id) for model in page.data)
        except errors.TransientError as error:
            raise self._given_up(error, failures=1, since=self._clock.now()) from error

    async def propose(self, prompt: str, deadline: float, on_tokens: Callable[[int], None] | None = None) -> Answer:
        """See `search.ports.Proposer`."""
        failing_since: float | None = None
        failures = 0
        trouble: errors.TransientError | None = None
        lost = Tokens()
        while True:
            draft = Draft(prompt, self._endpoint.model, self._profile.thought_fields, self._clock)
            try:
                answer = await self._ask(draft, deadline, _beyond(lost.completion, on_tokens))
            except errors.TransientError as error:
                trouble = error
                lost += draft.lost
                failures += 1
                now = self._clock.now()
                failing_since = now if failing_since is None else failing_since
                delay = self._patience.backoff.delay(failures, error.retry_after, self._random)
                if now + delay >= min(deadline, failing_since + self._patience.give_up_s):
                    raise self._given_up(error, failures, failing_since) from error
            else:
                if trouble is None or failing_since is None or not answer.nothing:
                    return replace(answer, tokens=answer.tokens + lost)
                # The deadline found it in one more try: what ended the call is the trouble before.
                raise self._given_up(trouble, failures, failing_since) from trouble
            await self._clock.sleep(delay)

    def _given_up(self, error: errors.TransientError, failures: int, since: float) -> ModelUnavailableError:
        given_up = ModelUnavailableError(
            f"the model server {self._endpoint.url} failed {failures} time(s) in {self._clock.now() - since:.0f} s, "
            f"at last: {error}. See that it runs and is reachable from here (GET /models must answer)"
        )
        given_up.since = since
        return given_up

    async def _ask(self, draft: Draft, deadline: float, on_tokens: Callable[[int], None]) -> Answer:
        """One request. Raises TransientError or ModelRefusedError."""
        left = deadline - self._clock.now()
        if left <= 0:
            return draft.unasked()
        try:
            async with asyncio.timeout(left), aclosing(self._chunks(draft)) as chunks:
                async for chunk in chunks:
                    if draft.add(chunk):
                        on_tokens(draft.completion)
        except TimeoutError:
            # Only the deadline arrives here as itself: the stream's own waits become TransientError in `_chunks`.
            return draft.answer(draft.finish or Finish.CUT)
        except errors.TransientError:
            # Whatever broke after the end of the answer took at most its usage with it.
            if draft.finish is None:
                raise
        if draft.finish is None:
            raise errors.TransientError("the stream ended before the answer did")
        return draft.answer(draft.finish)

    async def _chunks(self, draft: Draft) -> AsyncGenerator[Any, None]:
        with self._translated():
            stream = await _within(self._patience.first_token_s, self._request(draft.prompt), "an answer")
            async with stream:
                chunks = aiter(stream)
                while True:
                    patience = self._patience.stall_s if draft.pieces else self._patience.first_token_s
                    try:
                        chunk = await _within(patience, anext(chunks), "a token")
                    except StopAsyncIteration:
                        return
                    yield chunk

    async def _request(self, prompt: str) -> Any:
        system = [{"role": "system", "content": self._profile.system_prompt}] if self._profile.system_prompt else []
        messages: Any = [*system, {"role": "user", "content": prompt}]
        return await self._client.chat.completions.create(
            model=self._endpoint.model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._sampling.max_tokens,
            extra_headers=self._headers(),
            extra_body=dict(self._profile.extra_body) or None,
        )

    def _headers(self) -> dict[str, str]:
        key = self._endpoint.api_key().strip() if self._endpoint.api_key else ""
        if not key:
            return {}
        if not key.isascii() or not key.isprintable() or " " in key:
            raise errors.ModelRefusedError("the API key holds spaces or characters that no key has: look at its source")
        return {"Authorization": f"Bearer {key}"}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the SDK and its HTTP library raise into TransientError or ModelRefusedError."""
        try:
            yield
        except (errors.TransientError, ModelUnavailableError):
            raise
        except openai.APIStatusError as error:
            raise self._from_status(error.status_code, error, errors.retry_after(error.response.headers)) from error
        except openai.APIError as error:
            raise self._from_status(_status_in(error.body), error, None) from error
        except Exception as error:
            # Trust border: everything inside is the SDK at work on what a stranger sent. Older ones let errors of
            # their HTTP library through, and a malformed stream surfaces as whatever the parser tripped over.
            raise errors.TransientError(f"{type(error).__name__}: {self._shown(error)}") from error

    def _from_status(self, status: int | None, error: openai.APIError, retry: float | None) -> Exception:
        if status is None or errors.is_transient(status):
            where = f"HTTP {status}: " if status else ""
            return errors.TransientError(f"{where}{self._shown(error)}{_cause(error)}", retry)
        return errors.ModelRefusedError(
            f"HTTP {status} from {self._endpoint.url}: {self._shown(error)}. {self._remedy(status)}"
        )

    def _remedy(self, status: int) -> str:
        if status in {401, 403}:
            return (
                "Check the API key: spec.model.endpoint.apiKeySecretRef, on a laptop the environment variable "
                "KERNELSEARCH_SECRET_<NAME>_<KEY>"
            )
        if status == 404:  # noqa: PLR2004 - not found
            return (
                f"Check spec.model.name ({self._endpoint.model!r}) and the URL, which usually ends in /v1; "
                "GET /models lists the names that the server knows"
            )
        return (
            "The server does not take this request. When it speaks of length, lower spec.model.sampling.maxTokens or "
            "raise the server's context length"
        )

    def _shown(self, error: Exception) -> str:
        """The error's own words, bounded, without the key: some servers quote it."""
        text = " ".join(str(error).split())[:500]
        key = self._endpoint.api_key().strip() if self._endpoint.api_key else ""
        return text.replace(key, "***") if key else text


def _beyond(lost: int, on_tokens: Callable[[int], None] | None) -> Callable[[int], None]:
    """Tells the tokens of this answer and those of the ones that broke off before: all of them are paid for."""

    def tell(tokens: int) -> None:
        if on_tokens is not None:
            on_tokens(lost + tokens)

    return tell


def _connect(endpoint: Endpoint) -> openai.AsyncOpenAI:
    # A proxy that the environment names is right for the world and wrong for this machine.
    local = urlsplit(endpoint.url).hostname in LOOPBACK
    client = openai.AsyncOpenAI(
        base_url=endpoint.url,
        api_key="unused",  # the header is set at each request; without one the SDK would take OPENAI_API_KEY
        max_retries=0,
        timeout=openai.Timeout(None, connect=CONNECT_S),
        http_client=openai.DefaultAsyncHttpxClient(verify=_trusted(endpoint), trust_env=not local),
    )
    # The SDK took these from OPENAI_ORG_ID and OPENAI_PROJECT_ID, which speak of another service.
    client.organization = client.project = None
    return client


def _trusted(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if endpoint.insecure or not endpoint.ca_pem:
        return not endpoint.insecure
    try:
        return ssl.create_default_context(cadata=endpoint.ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"the certificates to trust cannot be read ({error}): caConfigMapRef must hold PEM text, "
            "-----BEGIN CERTIFICATE----- and so on"
        ) from error


async def _within(seconds: float, work: Any, what: str) -> Any:
    """Await it for so long at most. Raises TransientError when the time is over."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise errors.TransientError(f"waited {seconds:g} s for {what} in vain") from error


def _status_in(body: object) -> int | None:
    """The status that an error inside a stream carries (vLLM writes it as `code`), if any."""
    code = body.get("code") if isinstance(body, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else None  # noqa: PLR2004 - HTTP errors


def _cause(error: Exception) -> str:
    return f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
