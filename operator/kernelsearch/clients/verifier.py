"""Asks verifiers to judge candidates, over HTTP (design: `kernelverify_api`, version 1).

Several base URLs are one pool: each candidate goes to the least loaded verifier that answers, and is waited on by long
poll. A verifier that vanishes costs the attempt nothing: the candidate is submitted elsewhere, or to the same one once
it is back. A verdict is a value; what the verifier itself could not do is an InfrastructureError.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from random import Random
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from kernelsearch.clients import errors
from kernelsearch.clients.pool import SPOILT, LostError, Patience, Persistence, Pool, Site, SpoiltError
from kernelsearch.search.ports import Candidate, Clock, UnusableProblemError, VerifierUnavailableError
from kernelverify_api.report import AuditReport, Report, Stage, Status
from kernelverify_api.request import MAX_SOURCE, Audit, Evaluation, Language, Options, Problem
from kernelverify_api.service import AuditState, Capabilities, ErrorBody, JobState, Ticket

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")

TERMINAL = frozenset({Stage.DONE, Stage.FAILED, Stage.CANCELLED, Stage.INFRA_ERROR})
NOT_THE_CANDIDATES = frozenset({Status.INFRA_ERROR, Status.CANCELLED})
LARGEST_ANSWER = 4 * 2**20
"""A report has at most 256 KiB; what is longer comes from something that is no verifier."""


class VerifierClient:
    """Satisfies `search.ports.Verifier`. Use as an async context manager."""

    def __init__(
        self,
        urls: Sequence[str],
        problem: Problem,
        clock: Clock,
        *,
        options: Options | None = None,
        client: str = "kernelsearch",
        token: Callable[[], str] | None = None,
        patience: Patience | None = None,
        random: Random | None = None,
    ) -> None:
        self._problem = problem
        self._clock = clock
        self._options = options or Options()
        self._client = client
        self._token = token
        self._patience = patience or Patience()
        self._pool = Pool(urls, clock, self._patience, random or Random())  # noqa: S311 - jitter
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def renew(self, urls: Sequence[str]) -> None:
        """These are the verifiers from now on: pods come and go. None at all is borne as long as their failing."""
        self._pool.renew(urls)

    async def verify(self, candidate: Candidate, deadline: float) -> Report:
        """See `search.ports.Verifier`. Cancelling it cancels the job at the verifier, as reaching `deadline` does."""
        if len(candidate.source) > MAX_SOURCE:
            return _too_long(candidate)

        async def judge(site: Site, search: Persistence) -> Report:
            return await self._judge(site, self._evaluation(candidate, search.key, deadline), search)

        return await self._anywhere(deadline, judge)

    async def capabilities(self, deadline: float) -> Capabilities:
        """What the first verifier that answers can do; waits for one until `deadline`."""

        async def ask(site: Site, _: Persistence) -> Capabilities:
            return await self._call(site, "GET", "/v1/capabilities", Capabilities)

        return await self._anywhere(deadline, ask)

    async def audit(self, deadline: float, seed: int | None = None) -> AuditReport:
        """Is the problem itself sound? Raises VerifierRefusedError when the verifier cannot read the request."""
        body = Audit(problem=self._problem, seed=seed)

        async def ask(site: Site, _: Persistence) -> AuditReport:
            wait = self._patience.audit_s
            return (await self._call(site, "POST", "/v1/audits", AuditState, body=body, wait=wait)).report

        return await self._anywhere(deadline, ask)

    async def _anywhere(self, deadline: float, work: Callable[[Site, Persistence], Awaitable[Result]]) -> Result:
        """Do it at one verifier after the other until one does it, or persistence or the deadline ends."""
        search = Persistence(self._clock, self._patience, deadline)
        while True:
            site = await self._pool.choose(search)
            try:
                async with self._deadline(deadline):
                    result = await work(site, search)
            except errors.TransientError as error:
                self._pool.put_aside(site, error)
                search.note(site.url, error)
            else:
                site.failures = 0
                return result

    def _evaluation(self, candidate: Candidate, key: str, deadline: float) -> Evaluation:
        known = {language.value for language in Language}
        return Evaluation(
            problem=self._problem,
            source=candidate.source,
            language=Language(candidate.language) if candidate.language in known else None,
            options=self._options.model_copy(update={"level": candidate.level}),
            client=self._client,
            idempotency_key=key,
            deadline_s=max(0.001, deadline - self._clock.now()),
        )

    @asynccontextmanager
    async def _deadline(self, deadline: float) -> AsyncIterator[None]:
        """Raise VerifierUnavailableError when the deadline comes inside."""
        limit = asyncio.timeout(max(0.0, deadline - self._clock.now()))
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise VerifierUnavailableError("the deadline came before the verifier's answer") from error

    # ---- one job ----

    async def _judge(self, site: Site, evaluation: Evaluation, search: Persistence) -> Report:
        site.in_flight += 1
        try:
            ticket = await self._call(site, "POST", "/v1/evaluations", Ticket, body=evaluation)
            search.accepted()
            site.position = ticket.position
            return await self._wait(site, ticket.id)
        finally:
            site.in_flight -= 1
            site.position = 0

    async def _wait(self, site: Site, job: str) -> Report:
        try:
            while True:
                state = await self._poll(site, job)
                if state.stage in TERMINAL:
                    return _verdict(site.url, state)
                site.position = state.position or 0
        except asyncio.CancelledError:
            # The deadline, or the caller, ended this: nobody will read the verdict, so free the verifier.
            await asyncio.shield(self._cancel(site, job))
            raise

    async def _poll(self, site: Site, job: str) -> JobState:
        wait = self._patience.poll_s
        try:
            return await self._call(site, "GET", f"/v1/evaluations/{job}?wait={wait:g}", JobState, wait=wait)
        except errors.VerifierRefusedError as error:
            # It forgot a job that it had accepted: it was restarted meanwhile.
            raise LostError(f"{site.url} no longer knows the job: {error}") from error
        except errors.TransientError as error:
            raise LostError(str(error), error.retry_after) from error

    async def _cancel(self, site: Site, job: str) -> None:
        with suppress(errors.TransientError, VerifierUnavailableError):
            await self._request(site, "DELETE", f"/v1/evaluations/{job}", None, self._patience.cancel_s)

    # ---- HTTP ----

    async def _call(
        self,
        site: Site,
        method: str,
        path: str,
        answer: type[Body],
        *,
        body: BaseModel | None = None,
        wait: float = 0.0,
    ) -> Body:
        status, text = await self._request(site, method, path, body, wait + self._patience.answer_s)
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise errors.TransientError(
                f"{site.url}{path} answered {status} with no {answer.__name__} of version 1 "
                f"({'.'.join(map(str, first['loc']))}: {first['msg']}); is it a verifier of this version?"
            ) from error

    async def _request(
        self, site: Site, method: str, path: str, body: BaseModel | None, timeout_s: float
    ) -> tuple[int, bytes]:
        """Status and body of a success. Raises TransientError or VerifierRefusedError."""
        if self._session is None:
            raise RuntimeError("VerifierClient is used as an async context manager; enter it first")
        content = None if body is None else body.model_dump_json(by_alias=True, exclude_none=True).encode()
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            if self._token is not None:  # read for each request: the kubelet renews it
                headers["Authorization"] = f"Bearer {self._token()}"
            async with self._session.request(
                method, f"{site.url}{path}", data=content, headers=headers, timeout=timeout
            ) as response:
                text = await _bounded(site.url, response)
                _raise_for(site.url, response.status, response.headers, text)
                return response.status, text
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            words = str(error) or type(error).__name__
            raise errors.TransientError(f"{site.url} does not answer: {words}") from error


def _verdict(url: str, state: JobState) -> Report:
    """The report of a finished job. Raises for what is the verifier's doing."""
    report = state.report
    if state.stage is Stage.FAILED:
        raise UnusableProblemError(_said(state.error))
    if report is None or report.status in NOT_THE_CANDIDATES:
        if report is None:
            raise SpoiltError(f"{url}: stage {state.stage} without a report")
        raise SpoiltError(f"{url}: {report.summary}", SPOILT if report.status is Status.INFRA_ERROR else 1)
    return report


def _said(error: ErrorBody | None) -> str:
    if error is None:
        return "the verifier cannot use this problem, and does not say why: look at its log"
    return f"{error.field}: {error.error}" if error.field else error.error


async def _bounded(url: str, response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(65536):
        size += len(part)
        if size > LARGEST_ANSWER:
            raise errors.TransientError(f"{url} answered with more than {LARGEST_ANSWER} bytes; is it a verifier?")
        parts.append(part)
    return b"".join(parts)


def _raise_for(url: str, status: int, headers: Mapping[str, str], text: bytes) -> None:
    if status < HTTPStatus.BAD_REQUEST:
        return
    body = _error_body(text)
    said = f"{url} answered {status}: {f'{body.field}: ' if body.field else ''}{body.error}"
    if errors.is_transient(status) or status == HTTPStatus.UNAUTHORIZED:
        # A verifier that does not know our key yet, or a token that has just run out: nobody's fault but the cluster's.
        raise errors.TransientError(said, errors.retry_after(headers))
    if (body.field or "").startswith("problem"):
        raise UnusableProblemError(f"{body.field}: {body.error}")
    raise errors.VerifierRefusedError(said)


def _error_body(text: bytes) -> ErrorBody:
    try:
        return ErrorBody.model_validate_json(text)
    except ValidationError:
        return ErrorBody(error=" ".join(text[:300].decode(errors="replace").split()) or "nothing")


def _too_long(candidate: Candidate) -> Report:
    """No verifier would take it, and that is the candidate's doing."""
    return Report(
        schema=1,
        id=f"unsent-{candidate.attempt}",
        status=Status.COMPILE_ERROR,
        summary=f"the source has {len(candidate.source)} characters; at most {MAX_SOURCE} are judged",
        level=candidate.level,
    )
