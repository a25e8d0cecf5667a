"""Submitting: a task or its name, its input, and how it is to be run."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, overload

import msgspec

from ropeway.client.encoding import checked_key, encode_input
from ropeway.client.handle import JobHandle
from ropeway.client.patience import Sleep
from ropeway.client.transport import Accepted, Order, Transport
from ropeway.client.wire import JobRequest, RetryRequest
from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.domain.retry import Retry, backoff_s
from ropeway.domain.webhook import Webhook
from ropeway.domain.worker import TaskCard

__all__ = [
    "BATCH_JOBS",
    "CacheChanges",
    "Call",
    "JobLike",
    "OptionChanges",
    "Submitter",
    "TaskLike",
    "accepted",
    "call",
    "template",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

BATCH_JOBS = 512  # past this a batch grows no faster, and its latency only longer

_CROWD = Retry(max_attempts=1000, base_s=0.1, cap_s=2.0)  # how a full queue is tried again by submit_many


class TaskLike(Protocol[P, R_co]):
    """What a client asks of a task object; `ropeway.App` makes them."""

    @property
    def name(self) -> str: ...

    @property
    def card(self) -> TaskCard: ...

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The call's input as JSON. Raises InputInvalid when the arguments do not fit the task's types."""
        ...

    def decode_output(self, output: str) -> R_co:
        """The task's return value from its JSON."""
        ...


class JobLike(Protocol):
    """A job by its id: a handle, of whichever client."""

    @property
    def id(self) -> str: ...


class CacheChanges(TypedDict, total=False):
    """What a submit wants of the result cache: see `client.wire.CacheRequest`. `ttl`: seconds."""

    mode: Literal["use", "refresh", "off"]
    ttl: float


class OptionChanges(TypedDict, total=False):
    """What `with_options` takes. Durations are seconds; what is left out stays as the task declares it.

    `delay`: not before so long from now; or `run_at`: not before this instant, an aware datetime or RFC 3339.
    `queue_timeout`: to start. `timeout`: to run. `first_output_timeout`: to its first output; `output_timeout`:
    between two of them. `retention`: kept after success.
    `webhook`: whom to tell of the end; a URL alone is told of every kind of end.
    `cache`: False for a job of its own; True, or `CacheChanges`, for an earlier result or a share in a job under way.
    `after`: jobs that have to end first, by handle or id, one or many; `after_failure`: when one of them does not
    succeed, "fail", as is usual, or "run" when all have ended. A job whose `output` is in the input is waited for too.
    """

    queue: str
    priority: Literal["low", "normal", "high"]
    delay: float
    run_at: datetime | str
    queue_timeout: float
    timeout: float
    first_output_timeout: float
    output_timeout: float
    retention: float
    retry: Retry
    concurrency_key: str
    cost: float
    on_disconnect: Literal["continue", "cancel"]
    metadata: dict[str, str]
    tags: Sequence[str]
    webhook: Webhook | str
    cache: bool | CacheChanges
    after: JobLike | str | Iterable[JobLike | str]
    after_failure: Literal["fail", "run"]
    idempotency_key: str


class Call(Generic[R]):
    """A task with its input, bound and checked, for `submit_many`. Made by `call`."""

    __slots__ = ("card", "decode", "idempotency_key", "input", "task")

    def __init__(
        self,
        task: str,
        input_json: bytes,
        card: TaskCard | None = None,
        decode: Callable[[str], R] | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        self.task = task
        self.input = msgspec.Raw(input_json)
        self.card = card
        self.decode = decode
        self.idempotency_key = idempotency_key

    def keyed(self, idempotency_key: str) -> Call[R]:
        """This call under an idempotency key: however often it is submitted, it makes one job."""
        return Call(self.task, bytes(self.input), self.card, self.decode, idempotency_key)


@overload
def call(task: TaskLike[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
@overload
def call(task: str, /, **fields: Any) -> Call[Any]: ...
def call(task: Any, /, *args: Any, **kwargs: Any) -> Call[Any]:
    """A task, or a task's name, with its input. Raises InputInvalid when a task's arguments do not fit its types."""
    if isinstance(task, str):
        if args:
            raise InvalidRequest("a task that is named takes its input by field name: submit('chat', model='m')")
        return Call(task, encode_input(kwargs))
    return Call(task.name, task.bind(*args, **kwargs).encode(), task.card, task.decode_output)


class Submitter:
    """Submits with a fixed set of options. A `Client` is one; `with_options` gives another on the same connection."""

    def __init__(self, transport: Transport, options: OptionChanges | None = None, sleep: Sleep = asyncio.sleep):
        self._transport = transport
        self._sleep = sleep
        self._options: OptionChanges = options or {}
        self._template = template(self._options)
        self._key = self._options.get("idempotency_key")

    def with_options(self, **changes: Unpack[OptionChanges]) -> Submitter:
        """The same face with these options too, for as many submits as wanted:

            await client.with_options(priority="high", delay=5).submit(chat, messages)

        Raises InvalidRequest for an unknown option or a value of the wrong type.
        """
        return Submitter(self._transport, {**self._options, **changes}, self._sleep)

    @overload
    async def submit(self, task: TaskLike[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def submit(self, task: str, /, **fields: Any) -> JobHandle[Any]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Submit a task with its arguments, or by name with the fields of its input.

        On return the job is stored, as durably as the engine is.

        Raises:
            InputInvalid: the arguments do not fit the task; nothing was submitted.
            InvalidRequest: an option is out of its range. TaskNotFound: nobody announced this name.
            QueueFull, TooManyQueued: refused for now; `retry_after_s` where the server said when.
            IdempotencyKeyReused: the key was used with another body.
            EngineUnavailable: nothing was stored, or (OutcomeUnknown) repeat it with the same idempotency key.
        """
        return await self.submit_call(call(task, *args, **kwargs))

    async def submit_json(self, task: str, input_json: str | bytes) -> JobHandle[Any]:
        """Submit a task by name with its input as JSON text, whatever JSON that is. Raises as `submit` does."""
        text = input_json.encode() if isinstance(input_json, str) else input_json
        return await self.submit_call(Call(task, text))

    async def submit_call(self, one: Call[R]) -> JobHandle[R]:
        """Submit what `call` made. Raises as `submit` does."""
        (answer,) = await self._transport.submit([self._order(one)])
        return accepted(self._answer(one, answer))

    async def submit_many(
        self, calls: Iterable[Call[R]] | AsyncIterable[Call[R]], *, patience: float = 60.0
    ) -> AsyncIterator[JobHandle[R]]:
        """Submit calls as fast as they are accepted: yields their handles, in order.

        Takes 512 at a time, and the next 512 while those are being stored, so a source of millions is read no faster
        than the engine writes. Calls that a full queue refuses are tried again, for `patience` seconds without
        progress.

        Raises what `submit` does, at the call's own place; some hundred later calls may have been accepted.
        """
        out: deque[asyncio.Task[list[JobHandle[R] | RopewayError]]] = deque()
        try:
            async for batch in _batches(calls, BATCH_JOBS):
                out.append(asyncio.create_task(self.submit_batch(batch, patience)))
                await asyncio.sleep(0)  # it is sent now, and stored while the next is made
                if len(out) > 1:
                    for answer in await out.popleft():
                        yield accepted(answer)
            while out:
                for answer in await out.popleft():
                    yield accepted(answer)
        finally:
            for task in out:
                task.cancel()
            await asyncio.gather(*out, return_exceptions=True)

    async def submit_batch(self, calls: Sequence[Call[R]], patience_s: float) -> list[JobHandle[R] | RopewayError]:
        """Submit these together. Those refused for now are tried again until none is left or patience ends."""
        answers = await self._transport.submit([self._order(one) for one in calls])
        waited_s, attempt = 0.0, 1
        while refused := [n for n, answer in enumerate(answers) if _refused_for_now(answer)]:
            asked_s = max(_retry_after(answers[n]) for n in refused)
            wait_s = backoff_s(_CROWD, attempt, 1.0, asked_s)
            if waited_s + wait_s > patience_s:
                break
            await self._sleep(wait_s)
            again = await self._transport.submit([self._order(calls[n]) for n in refused])
            moved = any(isinstance(answer, Accepted) for answer in again)
            waited_s, attempt = (0.0, 1) if moved else (waited_s + wait_s, attempt + 1)
            for n, answer in zip(refused, again, strict=True):
                answers[n] = answer
        return [self._answer(one, answer) for one, answer in zip(calls, answers, strict=True)]

    def _order(self, one: Call[Any]) -> Order:
        said = self._template
        if said is None:
            request = JobRequest(one.task, one.input)
        else:
            request = msgspec.structs.replace(said, task=one.task, input=one.input)
        key = self._key if one.idempotency_key is None else one.idempotency_key
        return Order(request, one.card, None if key is None else checked_key(key))

    def _answer(self, one: Call[R], answer: Accepted | RopewayError) -> JobHandle[R] | RopewayError:
        if isinstance(answer, RopewayError):
            return answer
        return JobHandle(self._transport, answer.id, one.decode, answer.replayed, answer.cached)


def accepted(answer: JobHandle[R] | RopewayError) -> JobHandle[R]:
    """The handle; a refusal is raised."""
    if isinstance(answer, RopewayError):
        raise answer
    return answer


def template(options: OptionChanges) -> JobRequest | None:
    """A request that says these options and no task yet; None when they say nothing."""
    fields: dict[str, Any] = {name: value for name, value in options.items() if name != "idempotency_key"}
    if not fields:
        return None
    if isinstance(retry := fields.get("retry"), Retry):
        fields["retry"] = RetryRequest(**msgspec.structs.asdict(retry))
    if isinstance(run_at := fields.get("run_at"), datetime):
        fields["run_at"] = run_at.isoformat()
    if isinstance(url := fields.get("webhook"), str):
        fields["webhook"] = Webhook(url)
    if "after" in fields:
        fields["after"] = _ids_of(fields["after"])
    try:
        return msgspec.convert({"task": "", **fields}, JobRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"options: {error}") from error


def _ids_of(jobs: JobLike | str | Iterable[JobLike | str]) -> list[object]:
    """The ids of one job or many. What is none stays as it is, to be refused with the other options."""
    many = jobs if isinstance(jobs, Iterable) and not isinstance(jobs, str) else (jobs,)
    return [getattr(job, "id", job) for job in many]


def _refused_for_now(answer: Accepted | RopewayError) -> bool:
    return isinstance(answer, RopewayError) and answer.retryable


def _retry_after(answer: Accepted | RopewayError) -> float:
    return (answer.retry_after_s or 0.0) if isinstance(answer, RopewayError) else 0.0


async def _batches(calls: Iterable[Call[R]] | AsyncIterable[Call[R]], size: int) -> AsyncIterator[list[Call[R]]]:
    if isinstance(calls, Iterable):
        source = iter(calls)
        while batch := list(itertools.islice(source, size)):
            yield batch
        return
    batch = []
    async for one in calls:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
