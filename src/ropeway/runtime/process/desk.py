"""What a task's code has at hand inside a child: the parts that its `Context` is made of, whose words go to the worker.

What the worker alone can do (keep a file, read the engine) is asked of it, and the code waits for the answer. It runs
blocking code only, so what must be awaited is refused here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from ropeway.blobs.handle import File
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import EngineUnavailable, InvalidRequest, RopewayError, TaskFault
from ropeway.domain.file import FileRecord, FilesNotKept, FilesUnavailable, StorageFull
from ropeway.domain.limit import LimitSignal
from ropeway.domain.output import Made
from ropeway.runtime.artifacts import Artifacts, Content, Saving
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.coding import encode, encode_output
from ropeway.runtime.feed import LOG_LIMIT, Feed
from ropeway.runtime.mailbox import Mailbox, PostOffice
from ropeway.runtime.process.kin import Kin
from ropeway.runtime.process.wire import Answer, Ask, Earlier, Log, Out, Progress, Used, Wire
from ropeway.runtime.resuming import Resuming

__all__ = ["Desk", "Line"]

T = TypeVar("T")

_ERRORS: dict[str, type[RopewayError]] = {
    kind.code: kind for kind in (FilesNotKept, FilesUnavailable, StorageFull, InvalidRequest, EngineUnavailable)
}
_PIECE_BYTES = 1 << 20


def _only_awaited() -> NoReturn:
    raise RuntimeError(
        'this must be awaited, and a task with run="process" is blocking code: call the plain form of it'
    )


class Line(Feed):
    """The feed of an attempt in a child. A worker that reads no more makes whoever writes wait."""

    __slots__ = ("_desk", "_late", "_told", "_turn", "_wire")

    def __init__(self, attempt: Attempt, wire: Wire, desk: Desk) -> None:
        self.attempt = attempt
        self._wire = wire
        self._desk = desk
        self._turn = threading.Lock()
        self._told = False  # progress is on its way, and not acknowledged
        self._late: str | None = None

    @property
    def is_here(self) -> bool:
        """Nothing of the task runs in a loop here, but what a plain form of the context's methods has run there."""
        return self._desk.is_in_loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._desk.loop

    @property
    def clock(self) -> Clock:
        return self._desk.clock

    def keep(self, type_: str, data: str, then: Callable[[bool], None]) -> None:
        then(msgspec.json.decode(self._desk.ask("keep", {"type": type_, "data": data}), type=bool))

    def emit(self, item: Any) -> None:
        piece = encode_output(item)
        self.check_open()
        self._wire.send(Out(piece, isinstance(item, str)))

    def progress(self, data: Mapping[str, Any]) -> None:
        """One is on its way at a time; of those that come meanwhile the newest follows."""
        self.check_open()
        text = encode(data)
        with self._turn:
            if self._told:
                self._late = text
                return
            self._told = True
        self._wire.send(Progress(text))

    def log(self, message: str, level: str) -> None:
        self.check_open()
        self._wire.send(Log(message[:LOG_LIMIT], level))

    def artifact(self, data: Mapping[str, Any]) -> None:
        raise AssertionError("the worker itself tells of what it keeps")

    def usage(self, amounts: Mapping[str, Any]) -> None:
        self.check_open()
        self._wire.send(Used(encode(amounts)))

    def acknowledged(self) -> None:
        """The worker has taken the last progress."""
        with self._turn:
            late, self._late = self._late, None
            self._told = late is not None
        if late is not None:
            self._wire.send(Progress(late))

    def flush(self) -> None:
        """Send the progress that still waits: the code has ended."""
        with self._turn:
            late, self._late = self._late, None
        if late is not None:
            self._wire.send(Progress(late))


class Desk:
    """One for a child: asks the worker, and makes the parts of a context."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiter] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self.clock: Clock = SystemClock()
        self.post = _Post(self)
        self.artifacts = _Artifacts(self)
        self.resuming = _Resuming(self)
        self.others = Kin(self.ask)

    @property
    def is_in_loop(self) -> bool:
        """Whether this is the thread of its loop."""
        return self._loop_thread is not None and threading.get_ident() == self._loop_thread.ident

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """A loop in a thread, for what the worker's own code would await there. Made at its first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(target=self._loop.run_forever, name="ropeway-desk", daemon=True)
            self._loop_thread.start()
        return self._loop

    async def step(self, call: Callable[[], T]) -> T:
        """`Context.to_thread`."""
        _only_awaited()

    def ask(self, what: str, facts: Any = None) -> str:
        """The worker's answer, as JSON. Raises what it answers as an error; TimeoutError, CancelledError among them."""
        n, waiter = next(self._numbers), _Waiter()  # numbers from 1: 0 is for what nobody waits for
        self._waiting[n] = waiter
        try:
            self._wire.send(Ask(n, what, encode(facts)))
            waiter.there.wait()
        finally:
            del self._waiting[n]
        assert waiter.answer is not None
        return _read(waiter.answer)

    def tell(self, what: str, facts: Any) -> None:
        """Have the worker do something, soon."""
        self._wire.send(Ask(0, what, encode(facts)))

    def answered(self, answer: Answer) -> None:
        """From the thread that hears the worker."""
        waiter = self._waiting.get(answer.n)
        if waiter is not None:
            waiter.answer = answer
            waiter.there.set()


class _Waiter:
    def __init__(self) -> None:
        self.there = threading.Event()
        self.answer: Answer | None = None


def _read(answer: Answer) -> str:
    match answer.code:
        case None:
            return answer.value or "null"
        case "timeout":
            raise TimeoutError
        case "cancelled":
            raise asyncio.CancelledError(answer.detail)
        case code if code in _ERRORS:
            raise _ERRORS[code](answer.detail)
        case code:
            raise TaskFault(answer.detail, code=code)


class _Post(PostOffice):
    """Gives mailboxes that are the worker's."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def mailbox(self, attempt: Attempt) -> Mailbox:
        return _Mailbox(self._desk)

    def tell(self, signals: Sequence[LimitSignal]) -> None:
        self._desk.tell("limits", list(signals))


class _Resuming(Resuming):
    """What earlier attempts made, as the worker reads it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def earlier(self, attempt: Attempt) -> Made:
        if attempt.earlier is None:
            attempt.earlier = self._asked() if attempt.runs_again else Made()
        return attempt.earlier

    def _asked(self) -> Made:
        return msgspec.json.decode(self._desk.ask("earlier"), type=Earlier).made()


class _Mailbox(Mailbox):
    __slots__ = ("_desk",)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def take(self, timeout_s: float | None = None) -> Any:
        _only_awaited()

    def take_blocking(self, timeout_s: float | None = None) -> Any:
        return msgspec.json.decode(self._desk.ask("input", {"timeout_s": timeout_s}))

    async def take_now(self) -> tuple[Any, ...]:
        return tuple(msgspec.json.decode(self._desk.ask("input now")))


class _Artifacts(Artifacts):
    """Has the worker keep files: it reads them from where they lie on this machine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def save(self, attempt: Attempt, feed: Feed, name: str, content: Content, content_type: str | None) -> Saving:
        with _as_file(content) as path:
            facts = {"name": name, "path": str(path.absolute()), "content_type": content_type}
            record = msgspec.json.decode(self._desk.ask("artifact", facts), type=FileRecord)
        return Saving(record.id, File(record.id, record=record))


@contextlib.contextmanager
def _as_file(content: Content) -> Iterator[Path]:
    if isinstance(content, Path):
        yield content
        return
    handle, name = tempfile.mkstemp(prefix="ropeway-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(_pieces(content))
        yield Path(name)
    finally:
        Path(name).unlink()


def _pieces(content: Content) -> Iterable[bytes]:
    if isinstance(content, bytes | bytearray | memoryview):
        return (bytes(content),)
    if isinstance(content, AsyncIterable):
        raise InvalidRequest('a task with run="process" is blocking code: give an artifact a plain iterator of bytes')
    if isinstance(content, Iterable) and not isinstance(content, str):
        return content
    raise InvalidRequest("an artifact is a Path, bytes, or an iterator of bytes: text must be encoded first")
