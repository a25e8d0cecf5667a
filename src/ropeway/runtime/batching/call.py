"""One call of a batch task's function: made on the loop or on a thread, and given out to its jobs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from ropeway.domain.errors import TaskFault
from ropeway.runtime.artifacts import Artifacts
from ropeway.runtime.batching.item import Item
from ropeway.runtime.batching.parts import Parts
from ropeway.runtime.batching.steps import Ended, Steps, check_count
from ropeway.runtime.coding import OutputInvalid, encode_output
from ropeway.runtime.context import Context
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.isolation import ThreadPool
from ropeway.runtime.run import Work

__all__ = ["Call", "Home"]

log = logging.getLogger("ropeway.worker")


class Home(Protocol):
    """Who makes calls, and takes what they come to. All of it in the loop, but for `context`."""

    inbox: Inbox
    pool: ThreadPool
    artifacts: Artifacts

    def context(self, item: Item) -> Context: ...

    def ended(self, ended: Sequence[Ended]) -> None:
        """These jobs' parts are over."""
        ...

    def returned(self, call: Call) -> None:
        """The call is over: `results` has what is not told yet."""
        ...


class Call:
    """A batch that runs. `results` gathers what its jobs came to."""

    def __init__(self, items: Sequence[Item], work: Work, home: Home, *, split: bool) -> None:
        self.items = items
        self.results: list[Ended] = []
        self.is_abandoned = False
        self._task = work.task
        self._given = work.given or {}
        self._home = home
        self._loop_task: asyncio.Task[None] | None = None
        self._parts = Parts(list(items), lambda item: item.may_run, split=split)
        self._began = False

    @property
    def splits(self) -> int:
        return self._parts.splits

    def start(self) -> None:
        """In the loop."""
        for item in self.items:
            if item.feed is not None:
                item.output_before = item.feed.output
        if self._task.on_loop:
            name = f"batch of {self._task.name}"
            self._loop_task = asyncio.get_running_loop().create_task(self._run(), name=name)
        else:
            self._home.pool.submit(lambda _: self._run_in_thread(), None, lambda *_: self._home.returned(self))

    def stop_if_unwanted(self) -> None:
        """Cancel the code when none of the jobs wants it any more. Blocking code looks at its contexts."""
        if self._loop_task is not None and self._began and not any(item.may_run for item in self.items):
            self._loop_task.cancel()

    def leaves_thread(self) -> bool:
        """Asked as one of its jobs is given up: whether the thread runs for nobody from now on. In the loop."""
        left = [item for item in self.items if not (item.closed or item.done)]
        self.is_abandoned = not self._task.on_loop and len(left) <= 1
        return self.is_abandoned

    # -- on the loop

    async def _run(self) -> None:
        self._began = True
        try:
            await self._call_parts()
        except Exception as error:  # as on a thread
            log.exception("a batch of %s failed on the way", self._task.name)
            self._close(error)
        self._home.returned(self)

    async def _call_parts(self) -> None:
        while part := self._next():
            try:
                ended = await (self._stream(part) if self._task.streams else self._call(part))
            except GeneratorExit:  # the loop itself is gone
                raise
            except BaseException as error:
                ended = self._failed(part, error)
            self.results += await self._kept(ended)
            self._tell_early()
        self._close()

    async def _call(self, part: list[Item]) -> list[Ended]:
        return _matched(part, await self._task.fn(**self._arguments(part)))

    async def _stream(self, part: list[Item]) -> list[Ended]:
        steps, made = Steps(part), self._task.fn(**self._arguments(part))
        try:
            async for step in made:
                if ended := steps.give(step):
                    self._home.ended(await self._kept(ended))
                live = steps.live
                if not live:
                    break
                for item in live:
                    if item.feed is not None and item.feed.full:
                        await item.feed.room()
        finally:
            await made.aclose()
        return [(item, None) for item in steps.live]

    async def _kept(self, ended: list[Ended]) -> list[Ended]:
        """The same, once the files that these jobs began to keep are kept."""
        saving = self._home.artifacts
        for n, (item, end) in enumerate(ended):
            if saving.saves(item) and not isinstance(end, BaseException):
                try:
                    await saving.settled(item)
                except (Exception, asyncio.CancelledError) as error:
                    ended[n] = (item, error)
        return ended

    # -- on a thread

    def _run_in_thread(self) -> None:
        try:
            self._call_parts_blocking()
        except BaseException as error:  # a fault of ours: nobody else would hear of it
            log.exception("a batch of %s failed on the way", self._task.name)
            self._close(error)

    def _call_parts_blocking(self) -> None:
        while part := self._next():
            try:
                ended = self._stream_blocking(part) if self._task.streams else self._call_blocking(part)
            except BaseException as error:
                self._catch_up()
                ended = self._failed(part, error)
            self.results += ended
            self._tell_early()
        self._close()

    def _call_blocking(self, part: list[Item]) -> list[Ended]:
        return _matched(part, self._task.fn(**self._arguments(part)))

    def _stream_blocking(self, part: list[Item]) -> list[Ended]:
        steps, made = Steps(part), self._task.fn(**self._arguments(part))
        try:
            for step in made:
                if ended := steps.give(step):
                    self._home.inbox.post(self._home.ended, ended)
                if not any(item.may_run for item in part):
                    return []
        finally:
            made.close()
        return [(item, None) for item in steps.live]

    def _catch_up(self) -> None:
        """Wait until the loop knows of all that the code has told: whether a job has output yet."""
        if self._task.context_name is not None or self._task.streams:
            caught_up = threading.Event()
            self._home.inbox.post(caught_up.set)
            caught_up.wait()

    # -- either way

    def _next(self) -> list[Item]:
        """Whom the next call is for. Those whose input cannot be read have failed, each by itself."""
        while part := self._parts.take():
            readable = [item for item in part if self._is_readable(item)]
            if readable:
                return readable
        return []

    def _is_readable(self, item: Item) -> bool:
        try:
            item.arguments()
        except Exception as error:
            item.done = True
            self.results.append((item, error))
        return not item.done

    def _arguments(self, part: list[Item]) -> dict[str, Any]:
        arguments: dict[str, Any] = {name: [item.arguments()[name] for item in part] for name in self._task.input.names}
        arguments.update(self._given)
        if self._task.context_name is not None:
            arguments[self._task.context_name] = [self._home.context(item) for item in part]
        return arguments

    def _failed(self, part: list[Item], error: BaseException) -> list[Ended]:
        """The call for these raised: whom that ends. One that has put something out already is not run again."""
        part = [item for item in part if not item.done]
        again = [item for item in part if item.may_run and item.snooze is None and not _is_told(item)]
        if any(item.snooze is not None for item in part):
            self._parts.put_back(again)
            return [(item, _beside_snooze(item, error)) for item in part if item not in again]
        return [(item, error) for item in self._parts.failed(part, error, again)]

    def _tell_early(self) -> None:
        """While another part is to run, those whose part is over need not wait for it."""
        for item, _ in self.results:
            item.done = True
        if self._parts.pending and self.results:
            told, self.results = self.results, []
            self._home.inbox.post(self._home.ended, told)

    def _close(self, error: BaseException | None = None) -> None:
        """Whoever was not run to an end was asked to stop, or met a fault of ours."""
        left = [item for item in self.items if not item.done]
        self.results += [(item, error or asyncio.CancelledError(item.reason)) for item in left]
        for item in left:
            item.done = True


def _is_told(item: Item) -> bool:
    return item.feed is not None and item.feed.output != item.output_before


def _beside_snooze(item: Item, error: BaseException) -> BaseException:
    """How a call that one job ended by `ctx.snooze` ends another that cannot be run again."""
    if item.snooze is not None or item.reason is not None:
        return error
    return TaskFault("another job of its batch snoozed, which ended the call for all of them")


def _matched(part: list[Item], results: Any) -> list[Ended]:
    """Each job with its result. Raises OutputInvalid when they are not one for each."""
    check_count(results, len(part), "returned")
    return [(item, _ended(result)) for item, result in zip(part, results, strict=True)]


def _ended(result: Any) -> str | BaseException | None:
    if result is None or isinstance(result, Exception):
        return result
    try:
        return encode_output(result)
    except OutputInvalid as error:
        return error
