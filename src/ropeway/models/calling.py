"""One OpenAI-compatible API as a worker sees it: a pool of connections, and calls that are tried, limited and counted.

1. httpx2, not httpx: a call cancelled while it connects leaks its place in httpx's pool, and we cancel all the time;
   httpx2 mended it, and is kept up. Over TLS the streams share an HTTP/2 connection (see `http2`); plain HTTP is 1.1.
2. Until the first piece a failed call is tried again here, where nobody has seen anything yet. After it, the failure is
   the job's: a second try may answer otherwise, and only a new attempt tells readers so (`output.reset`).
3. Bodies are read raw and uncompressed: what a stranger sends is then as large as its limit says.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import httpx2

from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import Fail, TaskFault
from ropeway.domain.retry import backoff_s
from ropeway.models.answer import ERROR_READ_BYTES, Answer, read_whole
from ropeway.models.gate import Gate, Sleep
from ropeway.models.http2 import keep_writes_whole, reset_abandoned
from ropeway.models.keys import NO_KEY, Secret
from ropeway.models.options import UpstreamOptions
from ropeway.models.refusals import RATE_LIMITED, Refused, fault_of, refusal, remaining
from ropeway.models.wire import Garbled, chat_body, embedding_body, read_vectors

__all__ = ["Running", "Seams", "Upstream"]

T = TypeVar("T")

for _name in ("hpack", "httpx2", "httpcore2"):  # they log every header, the key's among them, and every request
    logging.getLogger(_name).setLevel(logging.WARNING)

KEEPALIVE_S = 60.0  # of an idle connection: below the 75 s that common servers and balancers keep theirs


class Running(Protocol):
    """What a call wants of the job that it is made for; a task's `Context` is one."""

    @property
    def job_id(self) -> str: ...

    @property
    def timeout(self) -> float | None: ...

    def usage(self, **amounts: Any) -> None: ...

    def throttled(self, after_s: float) -> NoReturn: ...

    def limit_told(self, limit: str | None = None, *, left: float | None = None, pause_s: float = 0.0) -> None: ...


class Seams(NamedTuple):
    """Where time and chance come in; tests hold them in their hands."""

    clock: Clock = SystemClock()
    sleep: Sleep = asyncio.sleep
    jitter: Callable[[], float] = random.random


class Upstream:
    """Calls to one API with one key, from one event loop. `async with` it: the connections close at the end.

    Args:
        base_url: with the API's version: `https://api.example.com/v1`.
        models: for each model that is served here, the provider's own name of it.
        budget: the name of what the provider lets the key do; what its answers tell of that is passed on.
    """

    def __init__(
        self,
        base_url: str,
        models: dict[str, str],
        key: Secret = NO_KEY,
        options: UpstreamOptions | None = None,
        seams: Seams | None = None,
        budget: str | None = None,
    ) -> None:
        self._options = options or UpstreamOptions()
        self._seams = seams or Seams()
        self._models = models
        self._key = key
        self._base_url = base_url
        self._budget = budget
        self._gate = Gate(self._options.concurrency, self._options.max_wait_s, self._seams.clock, self._seams.sleep)
        self._transport = _pool(self._options)
        self._http = _client(self._transport, self._options)

    def __repr__(self) -> str:
        return f"<Upstream {self._base_url} key={'none' if not self._key else self._key!r}>"

    async def __aenter__(self) -> Upstream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    # -- calls

    async def chat(self, request: ChatRequest, job: Running) -> AsyncGenerator[str | ChatDelta, None]:
        """The pieces of an answer as they come; what it took is told to the job at the end.

        Raises Fail or RetryAfter with the codes `input_invalid`, `provider_error` and `provider_rate_limited`.
        """
        body = chat_body(request, self._model(request.model), self._options)
        async with self._begun(body, job) as answer:
            try:
                async with aclosing(answer.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
            except Refused as refused:
                raise self._fault(refused) from None
            finally:
                if answer.used:
                    job.usage(**answer.used)

    async def embed(self, request: EmbeddingRequest, job: Running) -> list[list[float]]:
        """One vector for each text. Raises as `chat` does."""
        body = embedding_body(request, self._model(request.model))

        async def read(stack: AsyncExitStack) -> tuple[list[list[float]], dict[str, int]]:
            response = await self._answered(stack, "/embeddings", body, job)
            try:
                return read_vectors(await read_whole(response, self._options.max_answer_bytes), len(request.input))
            except Garbled as error:
                raise Refused(str(error)) from None

        async with self._tried(read, job) as (vectors, used):
            if used:
                job.usage(**used)
            return vectors

    def _model(self, name: str) -> str:
        """The provider's name of a model. Raises Fail for one that this does not serve."""
        if name not in self._models:
            raise Fail(f"this task serves {', '.join(self._models)}, not {name[:100]!r}", code="input_invalid")
        return self._models[name]

    # -- tries, up to the first piece

    @asynccontextmanager
    async def _begun(self, body: bytes, job: Running) -> AsyncIterator[Answer]:
        """An answer whose first piece is here."""

        async def begin(stack: AsyncExitStack) -> Answer:
            response = await self._answered(stack, "/chat/completions", body, job)
            answer = Answer(response, self._options, self._seams.clock)
            await answer.begin()
            return answer

        async with self._tried(begin, job) as answer:
            yield answer

    @asynccontextmanager
    async def _tried(self, call: Callable[[AsyncExitStack], Awaitable[T]], job: Running) -> AsyncIterator[T]:
        """What the call gives, tried until it does; what it opened stays open within. Raises the job's fault."""
        started_s = self._seams.clock.monotonic_s()
        tried = 0
        while True:
            async with AsyncExitStack() as stack:
                tried += 1
                try:
                    got = await self._try(stack, call)
                except Refused as refused:
                    wait_s = self._wait_s(refused, tried, started_s, job)
                else:
                    yield got
                    return
            await self._seams.sleep(wait_s)

    async def _try(self, stack: AsyncExitStack, call: Callable[[AsyncExitStack], Awaitable[T]]) -> T:
        await stack.enter_async_context(self._gate.entered())
        if self._options.http2:
            stack.push_async_callback(reset_abandoned, self._transport)  # after what is opened below has closed
        try:
            async with asyncio.timeout(self._options.first_token_s):
                return await call(stack)
        except TimeoutError:
            raise Refused(f"the provider had no answer within {self._options.first_token_s:g} s") from None

    async def _answered(self, stack: AsyncExitStack, path: str, body: bytes, job: Running) -> httpx2.Response:
        """A response whose status is 200; its body is to be read. Raises Refused."""
        headers = {"x-client-request-id": job.job_id}
        if self._key:
            headers["authorization"] = f"Bearer {self._key.reveal()}"
        call = self._http.stream("POST", self._base_url + path, content=body, headers=headers)
        try:
            response = await stack.enter_async_context(call)
            self._pass_on(response.headers, job)
            if response.status_code != httpx2.codes.OK:
                told = await read_whole(response, ERROR_READ_BYTES, whole=False)
                raise refusal(response.status_code, response.headers, told, self._seams.clock.now_ms())
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Refused(f"the provider could not be reached: {type(error).__name__}") from None
        return response

    def _pass_on(self, headers: httpx2.Headers, job: Running) -> None:
        """What the provider says is left of the budget."""
        for what, left in remaining(headers) if self._budget else ():
            job.limit_told(f"{self._budget}:{what}", left=left)

    def _wait_s(self, refused: Refused, tried: int, started_s: float, job: Running) -> float:
        """How long to wait before the next try. Raises the job's fault when there is none, or it is too far off."""
        if refused.limited and refused.after_s:
            self._gate.pause(refused.after_s)
            job.limit_told(pause_s=refused.after_s)
        policy = self._options.retry
        wait_s = backoff_s(policy, tried, self._seams.jitter(), refused.after_s)
        is_last = tried >= policy.max_attempts or wait_s > self._options.max_wait_s
        if not refused.again or is_last or not self._has_time(wait_s, started_s, job):
            if refused.again and refused.after_s and refused.code == RATE_LIMITED:
                job.throttled(refused.after_s)  # it said when; else the job's own retries decide
            raise self._fault(refused) from None
        return wait_s

    def _has_time(self, wait_s: float, started_s: float, job: Running) -> bool:
        """Whether the attempt is still within its own time after such a wait."""
        return job.timeout is None or self._seams.clock.monotonic_s() + wait_s < started_s + job.timeout

    def _fault(self, refused: Refused) -> TaskFault:
        refused.detail = self._key.hidden_in(refused.detail)
        return fault_of(refused)


def _pool(options: UpstreamOptions) -> httpx2.AsyncHTTPTransport:
    """Connections for as many calls as may be in flight."""
    tls = ssl.create_default_context()
    if options.ca_file:
        tls.load_verify_locations(options.ca_file)
    limits = httpx2.Limits(
        max_connections=options.concurrency,
        max_keepalive_connections=options.concurrency,
        keepalive_expiry=KEEPALIVE_S,
    )
    transport = httpx2.AsyncHTTPTransport(verify=tls, http2=options.http2, limits=limits, proxy=options.proxy)
    if options.http2:
        keep_writes_whole(transport)
    return transport


def _client(transport: httpx2.AsyncHTTPTransport, options: UpstreamOptions) -> httpx2.AsyncClient:
    """What all calls have in common. Redirects are not followed: they would take the key along."""
    return httpx2.AsyncClient(
        transport=transport,
        trust_env=False,
        headers={
            "user-agent": "ropeway",
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "accept-encoding": "identity",
            **options.headers,
        },
        timeout=httpx2.Timeout(None, connect=options.connect_s, write=options.connect_s),
        follow_redirects=False,
    )
