"""The transport over HTTP(S) to a gateway.

Calls and waits have pools of their own: a thousand long-polls never stand in the way of a submit. What is safe to
repeat is repeated while the gateway is out of reach; a submit always is, since it carries an idempotency key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from ropeway.client.deliveries import DeliveryBody, DeliveryList
from ropeway.client.fleet import PolicyRequest, QueueBody, QueueList, TaskBody, TaskList
from ropeway.client.follow import WAIT_PERSISTENCE, follow
from ropeway.client.gathering import Gathering
from ropeway.client.http_files import HttpFiles
from ropeway.client.http_keys import HttpKeys
from ropeway.client.http_limits import HttpLimits
from ropeway.client.http_schedules import HttpSchedules
from ropeway.client.patience import DEFAULT_PERSISTENCE, NO_PERSISTENCE, Sleep, persistently
from ropeway.client.problems import GatewayRefused, ProblemBody, error_from, error_of
from ropeway.client.transport import Accepted, Ending, JobFilter, Order
from ropeway.client.usage import UsageList
from ropeway.client.wire import EventBody, JobBody, JobList, request_json
from ropeway.domain.errors import EngineUnavailable, InvalidRequest, OutcomeUnknown, RopewayError, WaitTimeout
from ropeway.domain.file import referred_output
from ropeway.domain.ids import RandomBytes
from ropeway.domain.lifecycle import State
from ropeway.domain.retry import Retry

__all__ = ["HttpTransport"]

T = TypeVar("T")

CALL_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(45.0, connect=5.0)  # three heartbeats of 15 s missed: the line is dead
LONG_POLL_S = 30.0
LONG_POLL_GRACE_S = 10.0
CALLS = httpx.Limits(max_connections=100, max_keepalive_connections=50)
WAITS = httpx.Limits(max_connections=1000, max_keepalive_connections=50)
BATCH_LINES = 1000  # what a gateway takes in one body, unless it is told otherwise
BATCH_BYTES = 8 << 20
_KEY_BYTES = 16
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class _Line(msgspec.Struct):
    """The answer to one line of many: a job or a problem."""

    status: int
    job: Ending | None = None
    problem: ProblemBody = msgspec.field(default_factory=ProblemBody)


class HttpTransport:
    """Jobs behind a gateway. `url` is where it is mounted; the routes below it are those of the HTTP API."""

    def __init__(
        self,
        url: str,
        *,
        random: RandomBytes,
        key: str | None = None,
        sleep: Sleep = asyncio.sleep,
        wire: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`wire` carries the requests instead of the network.

        Raises InvalidRequest for a URL without a host, and a key that can be none.
        """
        self.keys = HttpKeys(self._call, _decode)
        self.limits = HttpLimits(self._call, _decode)
        self.schedules = HttpSchedules(self._call, _decode, random)
        # httpx's own, since they are not shown: what shows an object's parts, as error trackers do, shows no key then
        self._headers = httpx.Headers({} if key is None else {"Authorization": f"Bearer {_checked_key(key)}"})
        self._url = _checked(url).rstrip("/")
        self._random = random
        self._sleep = sleep
        self._wire = wire
        self._gathering = Gathering(self._submit_together)
        self.files = HttpFiles(self._url, lambda: _opened(self._waits), self._call)
        self._calls: httpx.AsyncClient | None = None
        self._waits: httpx.AsyncClient | None = None

    async def open(self) -> None:
        self._calls = self._pool(CALL_TIMEOUT, CALLS)
        self._waits = self._pool(STREAM_TIMEOUT, WAITS)

    def _pool(self, timeout: httpx.Timeout, limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=timeout, limits=limits, headers=self._headers, transport=self._wire)

    async def close(self) -> None:
        await self._gathering.finish()
        for pool in (self._calls, self._waits):
            if pool is not None:
                await pool.aclose()
        self._calls = self._waits = None

    # -- submit

    async def submit(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        """Orders with keys of their own go alone, since a body of many has one key; all others go together."""
        answers: dict[int, Accepted | RopewayError] = {}
        for n, order in enumerate(orders):
            if order.idempotency_key is not None:
                answers[n] = await self._submit_one(order)
            elif len(orders) == 1:
                answers[n] = await self._gathering.submit(order)
        rest = [n for n in range(len(orders)) if n not in answers]
        answers |= zip(rest, await self._submit_together([orders[n] for n in rest]), strict=True)
        return [answers[n] for n in range(len(orders))]

    async def _submit_together(self, orders: Sequence[Order]) -> list[Accepted | RopewayError]:
        if len(orders) == 1:
            return [await self._submit_one(orders[0])]
        answers: list[Accepted | RopewayError] = []
        for lines in _bodies([request_json(order.request) for order in orders]):
            answers += await self._submit_lines(lines)
        return answers

    async def _submit_one(self, order: Order) -> Accepted | RopewayError:
        headers = {**self._key_header(order.idempotency_key), "Content-Type": "application/json"}
        try:
            response = await self._call("POST", "/v1/jobs", content=request_json(order.request), headers=headers)
        except RopewayError as refusal:
            return refusal
        replayed = order.idempotency_key is not None and "idempotency-replayed" in response.headers
        told = _decode(response, Ending)
        return Accepted(told.id, replayed, told.cached)

    async def _submit_lines(self, lines: Sequence[bytes]) -> list[Accepted | RopewayError]:
        """Many in one call, under one key of ours: repeated, each line is the job that it was."""
        headers = {**self._key_header(), "Content-Type": "application/x-ndjson"}
        response = await self._call("POST", "/v1/jobs", content=b"\n".join(lines), headers=headers)
        told = [_decode_text(response, line, _Line) for line in response.content.splitlines()]
        if len(told) != len(lines):
            raise GatewayRefused(f"{len(lines)} jobs were answered {len(told)}", "unexpected_answer", 200)
        return [
            Accepted(line.job.id, cached=line.job.cached) if line.job else error_from(line.problem, line.status)
            for line in told
        ]

    def _key_header(self, key: str | None = None) -> dict[str, str]:
        """The caller's idempotency key, or one of our own, so that the call may be repeated."""
        return {"Idempotency-Key": key or self._random(_KEY_BYTES).hex()}

    # -- look and wait

    async def get(self, job_id: str) -> JobBody:
        return _decode(await self._call("GET", _path(job_id)), JobBody)

    async def ending(self, job_id: str, timeout_s: float | None) -> Ending:
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        while True:
            left_s = LONG_POLL_S if deadline_s is None else deadline_s - loop.time()
            job = await self._long_poll(job_id, min(max(left_s, 0.0), LONG_POLL_S))
            if job.state.terminal:
                return await self._whole(job)
            if left_s <= 0:
                raise WaitTimeout(f"{job_id} did not end within {timeout_s:g} s; it goes on")

    async def _whole(self, job: Ending) -> Ending:
        """With its output, also where that was too large for the job's row and is in a file."""
        if job.state is not State.succeeded or referred_output(str(job.output, "utf-8")) is None:
            return job
        output = await self.files.output(job.id)
        return job if output is None else msgspec.structs.replace(job, output=msgspec.Raw(output))

    async def _long_poll(self, job_id: str, wait_s: float) -> Ending:
        response = await self._call(
            "GET",
            _path(job_id),
            pool=self._waits,
            policy=WAIT_PERSISTENCE,
            params={"wait": f"{wait_s:.3f}"},
            timeout=httpx.Timeout(wait_s + LONG_POLL_GRACE_S, connect=5.0),
        )
        return _decode(response, Ending)

    def events(self, job_id: str, after: str | None) -> AsyncIterator[EventBody]:
        def connect(last_id: str | None) -> AbstractAsyncContextManager[httpx.Response]:
            headers = {"Accept": "text/event-stream"}
            if last_id is not None:
                headers["Last-Event-ID"] = last_id
            return _opened(self._waits).stream("GET", self._url + _path(job_id, "/events"), headers=headers)

        return follow(connect, after, self._sleep)

    async def find(self, wanted: JobFilter, limit: int, cursor: str | None) -> JobList:
        asked = {
            "state": ",".join(wanted.states),
            "queue": wanted.queue,
            "task": wanted.task,
            "tag": wanted.tag,
            "limit": str(limit),
            "cursor": cursor,
        }
        params = {name: value for name, value in asked.items() if value}
        return _decode(await self._call("GET", "/v1/jobs", params=params), JobList)

    # -- change

    async def send(self, job_id: str, data: bytes, key: str | None) -> JobBody:
        headers = {**self._key_header(key), "Content-Type": "application/json"}
        return _decode(
            await self._call("POST", _path(job_id, "/input"), content=b'{"data":%b}' % data, headers=headers), JobBody
        )

    async def cancel(self, job_id: str, reason: str | None, for_all: bool = False) -> JobBody:
        asked: dict[str, Any] = {} if reason is None else {"reason": reason}
        body = {**asked, "for_all": True} if for_all else asked or None
        headers = self._key_header()  # a repeat of ours counts once
        return _decode(await self._call("POST", _path(job_id, "/cancel"), json=body, headers=headers), JobBody)

    async def wake(self, job_id: str) -> JobBody:
        return _decode(await self._call("POST", _path(job_id, "/wake")), JobBody)

    async def retry(self, job_id: str) -> Accepted:
        response = await self._call("POST", _path(job_id, "/retry"), headers=self._key_header())
        return Accepted(_decode(response, Ending).id)

    async def delete(self, job_id: str, force: bool) -> None:
        await self._call("DELETE", _path(job_id), params={"force": "1"} if force else {})

    # -- what is around the jobs

    async def tasks(self) -> list[TaskBody]:
        return _decode(await self._call("GET", "/v1/tasks"), TaskList).data

    async def queues(self) -> list[QueueBody]:
        return _decode(await self._call("GET", "/v1/queues"), QueueList).data

    async def deliveries(self, job_id: str) -> list[DeliveryBody]:
        return _decode(await self._call("GET", _path(job_id, "/deliveries")), DeliveryList).data

    async def redeliver(self, job_id: str, delivery_id: str) -> DeliveryBody:
        path = _path(job_id, f"/deliveries/{quote(delivery_id, safe='')}/redeliver")
        return _decode(await self._call("POST", path, policy=NO_PERSISTENCE), DeliveryBody)

    async def usage(self, since: date | None, until: date | None) -> UsageList:
        asked = {"since": since, "until": until}
        params = {name: str(day) for name, day in asked.items() if day is not None}
        return _decode(await self._call("GET", "/v1/usage", params=params), UsageList)

    async def pause(self, queue: str, paused: bool) -> QueueBody:
        verb = "pause" if paused else "resume"
        return _decode(await self._call("POST", f"/v1/queues/{quote(queue, safe='')}/{verb}"), QueueBody)

    async def set_queue(self, queue: str, policy: PolicyRequest) -> QueueBody:
        body, headers = msgspec.json.encode(policy), {"Content-Type": "application/json"}
        path = f"/v1/queues/{quote(queue, safe='')}"
        return _decode(await self._call("PATCH", path, content=body, headers=headers), QueueBody)

    # -- one call

    async def _call(
        self,
        method: str,
        path: str,
        *,
        pool: httpx.AsyncClient | None = None,
        policy: Retry = DEFAULT_PERSISTENCE,
        **arguments: Any,
    ) -> httpx.Response:
        """One request, repeated while the gateway is out of reach. Raises what its problem stands for."""
        client = pool or _opened(self._calls)

        async def once() -> httpx.Response:
            try:
                response = await client.request(method, self._url + path, **arguments)
            except _NOT_SENT as error:
                raise EngineUnavailable(f"cannot reach {self._url}: {error or type(error).__name__}") from error
            except httpx.TransportError as error:
                raise OutcomeUnknown(f"lost {self._url} in a call: {error or type(error).__name__}") from error
            if response.is_success:
                return response
            raise error_of(response.status_code, response.headers, response.content)

        return await persistently(once, policy, self._sleep)


def _opened(pool: httpx.AsyncClient | None) -> httpx.AsyncClient:
    if pool is None:
        raise EngineUnavailable("the client is not open: use it inside `async with`")
    return pool


def _checked(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError as error:
        raise InvalidRequest(f"{url!r} is no URL: {error}", param="url") from error
    if not host:
        raise InvalidRequest(f"{url!r} names no host", param="url")
    return url


def _checked_key(key: str) -> str:
    """The key, if it may stand in a header; what is wrong with it otherwise, without saying it."""
    if not key or not all("!" <= char <= "~" for char in key):
        raise InvalidRequest("the key is empty, or has spaces or other characters that no key has", param="key")
    return key


def _path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}{rest}"


def _bodies(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Lines in bodies that a gateway takes."""
    body: list[bytes] = []
    size = 0
    for line in lines:
        if body and (len(body) >= BATCH_LINES or size + len(line) > BATCH_BYTES):
            yield body
            body, size = [], 0
        body.append(line)
        size += len(line) + 1
    if body:
        yield body


def _decode(response: httpx.Response, kind: type[T]) -> T:
    return _decode_text(response, response.content, kind)


def _decode_text(response: httpx.Response, text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        detail = f"{response.url} did not answer as a gateway does: {error}"
        raise GatewayRefused(detail, "unexpected_answer", response.status_code) from error
