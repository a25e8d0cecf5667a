"""Steps: parts of a task whose results are kept, so that the next attempt of the job does not repeat them.

A step's result goes into the job's log under the lease, as an event, and the step is done when the engine has it. An
attempt that is not the job's first reads the log back when it comes to its first step. What a step gives is always its
result after a way through JSON, the first time too: an attempt that finds it in the log sees nothing else.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from ropeway.domain.errors import StepInvalid
from ropeway.domain.event import STEP_COMPLETED
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.coding import Codec, OutputInvalid, PlainCodec, codec_for, encode_output
from ropeway.runtime.feed import Feed
from ropeway.runtime.resuming import Resuming

__all__ = ["NAME_LIMIT", "RESULT_LIMIT_CHARS", "Steps", "Threads"]

T = TypeVar("T")

NAME_LIMIT = 128
RESULT_LIMIT_CHARS = 256 << 10  # as much as stands inline in an answer: what is larger is a file


class Threads(Protocol):
    """Runs blocking calls on threads."""

    async def step(self, call: Callable[[], T]) -> T: ...


class Steps:
    """The steps of one attempt. Made at the first of them."""

    def __init__(self, attempt: Attempt, feed: Feed, threads: Threads, resuming: Resuming) -> None:
        self._attempt = attempt
        self._feed = feed
        self._threads = threads
        self._resuming = resuming
        self._names: set[str] = set()

    async def run(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In the loop. A plain function runs on a thread."""
        if not self._feed.is_here:
            raise RuntimeError("this is for async tasks: blocking code calls ctx.step_blocking()")
        with _Claim(self._names, name) as claim:
            result = await self._known(name)
            if result is None:
                began_s = self._now_s()
                result = _result(name, await self._call(lambda: fn(*args, **kwargs), fn))
                await self._keep(name, result, self._now_s() - began_s)
            claim.done()
        return _decoded(name, fn, result)

    async def remember(self, name: str, find: Callable[[], Awaitable[list[msgspec.Raw]]]) -> list[msgspec.Raw]:
        """What is found, as JSON texts: kept as a step's result is; if it is too large for that, found anew next time.

        In the loop. Raises what `find` does.
        """
        with _Claim(self._names, name) as claim:
            known = await self._known(name)
            if known is None:
                found = await find()
                text = msgspec.json.encode(found).decode()
                if len(text) <= RESULT_LIMIT_CHARS:
                    await self._keep(name, text, 0.0)
            else:
                found = msgspec.json.decode(known, type=list[msgspec.Raw])
            claim.done()
        return found

    def run_blocking(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In the thread of a blocking task."""
        if self._feed.is_here:
            raise RuntimeError("this is for blocking code: an async task awaits ctx.step()")
        if inspect.iscoroutinefunction(fn):
            raise StepInvalid(f"step '{name}' of a blocking task is a plain function, not an async one")
        with _Claim(self._names, name) as claim:
            result = self._wait(self._known(name))
            if result is None:
                began_s = self._now_s()
                result = _result(name, fn(*args, **kwargs))
                self._wait(self._keep(name, result, self._now_s() - began_s))
            claim.done()
        return _decoded(name, fn, result)

    async def _call(self, call: Callable[[], Any], fn: Callable[..., Any]) -> Any:
        if inspect.iscoroutinefunction(fn):
            return await call()
        value = await self._threads.step(call)
        return await value if inspect.isawaitable(value) else value  # `lambda: client.get(url)`

    def _now_s(self) -> float:
        return self._feed.clock.monotonic_s()

    async def _known(self, name: str) -> str | None:
        """The step's result, if an earlier attempt has it already. Raises CancelledError when no step should begin."""
        if self._attempt.reason is not None:
            raise asyncio.CancelledError(self._attempt.reason)
        return (await self._resuming.earlier(self._attempt)).steps.get(name)

    async def _keep(self, name: str, result: str, seconds: float) -> None:
        """Until the engine has it. Raises CancelledError when the lease is lost, for nobody will ever read it then."""
        saved: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._feed.check_open()
        data = f'{{"name":{_encode(name)},"seconds":{seconds:.3f},"result":{result}}}'
        self._feed.keep(STEP_COMPLETED, data, lambda kept: None if saved.done() else saved.set_result(kept))
        if not await saved:
            raise asyncio.CancelledError("the lease is lost")

    def _wait(self, doing: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._feed.loop).result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError(self._attempt.reason) from None


class _Claim:
    """A name is taken while its step runs, and for good when it is done; one that failed may be tried again."""

    def __init__(self, names: set[str], name: str) -> None:
        if not 1 <= len(name) <= NAME_LIMIT or not name.isprintable():
            raise StepInvalid(f"a step's name has 1 to {NAME_LIMIT} printable characters, not {name[:NAME_LIMIT]!r}")
        if name in names:
            raise StepInvalid(
                f"there is a step '{name}' in this attempt already: give each its own name, as in f'{name} {{n}}'"
            )
        self._names = names
        self._name = name
        self._is_done = False

    def __enter__(self) -> _Claim:
        self._names.add(self._name)
        return self

    def done(self) -> None:
        self._is_done = True

    def __exit__(self, *_: object) -> None:
        if not self._is_done:
            self._names.discard(self._name)


def _result(name: str, value: Any) -> str:
    """A step's result as JSON."""
    try:
        result = encode_output(value)
    except OutputInvalid as error:
        raise StepInvalid(f"the result of step '{name}' is no JSON value: {error.__cause__}") from error
    if len(result) > RESULT_LIMIT_CHARS:
        raise StepInvalid(
            f"the result of step '{name}' has {len(result)} characters of JSON, and {RESULT_LIMIT_CHARS} is the most: "
            f"keep it as a file (ctx.artifact), and give its name"
        )
    return result


def _decoded(name: str, fn: Callable[..., Any], result: str) -> Any:
    """The result as the function's own annotation has it, where it has one."""
    try:
        return _codec(fn).decode(result)
    except (ValueError, TypeError) as error:  # msgspec's and pydantic's are ValueErrors
        raise StepInvalid(f"the result of step '{name}' is not what its function says it returns: {error}") from error


def _codec(fn: Callable[..., Any]) -> Codec:
    try:
        return codec_for(typing.get_type_hints(fn, include_extras=True).get("return", Any))
    except (TypeError, NameError, AttributeError):  # no annotations to be had, or of what JSON does not know
        return PlainCodec(Any)


def _encode(name: str) -> str:
    return msgspec.json.encode(name).decode()
