"""What one attempt tells of itself: output as it comes, progress, logs and usage, on the way to the engine.

Adjacent strings become one `output.delta` while the append before them is in flight: the first goes out at once, and
the slower the engine answers, the more go out together. All state is the loop's; other threads come in by the inbox.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ropeway.domain.clock import Clock
from ropeway.domain.event import ARTIFACT, LOG, OUTPUT_DELTA, PROGRESS, USAGE
from ropeway.domain.lease import Append
from ropeway.domain.output import Made, joined, output_json
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.coding import encode, encode_output
from ropeway.runtime.inbox import Inbox
from ropeway.runtime.progress import Progress

__all__ = ["BOUND_ITEMS", "MERGE_ITEMS", "Feed", "Outlet"]

MERGE_ITEMS = 32  # strings in one event at most: http-api.md, "a writer coalesces deltas"
BOUND_ITEMS = 256  # output items that may be unsaved; whoever makes more waits for the engine
APPEND_CHARS = 65_536  # of drafts in one append, or one draft that is larger: it is read back whole, in any page
LOG_LIMIT = 8_192  # characters of one log line: a log event is a line, not a file


class Outlet(NamedTuple):
    """What feeds write through. `enqueue` is told of one that has something to send."""

    enqueue: Callable[[Feed], None]
    inbox: Inbox
    clock: Clock


class Feed:
    """The events of one attempt, in order, and the output that they add up to."""

    __slots__ = (
        "_apart",
        "_clean_call",
        "_drafts",
        "_emitted",
        "_first_index",
        "_flying",
        "_flying_drafts",
        "_flying_items",
        "_kept_calls",
        "_next_seq",
        "_outlet",
        "_pieces",
        "_progress",
        "_queued",
        "_room_calls",
        "_saved_items",
        "_text",
        "_text_only",
        "_totals",
        "attempt",
        "heard",
    )

    def __init__(self, attempt: Attempt, outlet: Outlet) -> None:
        self.attempt = attempt
        self.heard: Callable[[], None] | None = None  # told of each output, where somebody counts the time between
        self._outlet = outlet
        self._next_seq = attempt.assignment.next_seq
        self._emitted = itertools.count(1)  # ahead of the pieces by what threads have posted; one step is atomic
        self._pieces: list[str] = []  # every item of the output, as JSON
        self._first_index = 0  # of the first of them: above 0 where one stands for several of an earlier attempt
        self._text: list[str] = []  # the last of them: strings that no draft holds yet
        self._text_only = True
        self._apart: set[int] = set()  # places of pieces that are JSON strings and no text: dates, say
        self._drafts: list[tuple[str, str, int]] = []  # type, data, and the items that are saved once this is
        self._queued = False
        self._flying = False
        self._flying_items = 0
        self._flying_drafts = 0
        self._kept_calls: list[tuple[int, Callable[[bool], None]]] = []  # each with how many drafts are before it
        self._saved_items = 0
        self._room_calls: list[Callable[[], None]] = []
        self._clean_call: Callable[[], None] | None = None
        self._progress: Progress | None = None
        self._totals: dict[str, Any] = {}

    # -- what the task's code calls, in any thread

    def emit(self, item: Any) -> None:
        """Add an item to the output. A blocking task waits here while too much is unsaved.

        Raises OutputInvalid when JSON cannot carry it, CancelledError when the attempt has ended.
        """
        piece = encode_output(item)
        self.check_open()
        emitted = next(self._emitted)
        if self._outlet.inbox.here:
            self._add(piece, isinstance(item, str))
            return
        if emitted - self._saved_items > BOUND_ITEMS:
            self._wait_in_thread()
        self._outlet.inbox.post(self._add, piece, isinstance(item, str))

    def progress(self, data: Mapping[str, Any]) -> None:
        self.check_open()
        if self._progress is None:
            self._progress = Progress(self._outlet.inbox, self._outlet.clock, self._draft_progress)
        self._progress.report(encode(data))

    def log(self, message: str, level: str) -> None:
        self.check_open()
        self._in_loop(self._draft, LOG, encode({"level": level, "message": message[:LOG_LIMIT]}))

    def artifact(self, data: Mapping[str, Any]) -> None:
        """Tell of a file that is kept. Raises CancelledError when the attempt has ended."""
        self.check_open()
        self._in_loop(self._draft, ARTIFACT, encode(data))

    def usage(self, amounts: Mapping[str, Any]) -> None:
        """Add to what the attempt has used so far; what is no number replaces what was said before."""
        self.check_open()
        encode(amounts)  # refused here, in the caller's own stack
        self._in_loop(self._use, amounts)

    # -- what the executor and others of ours call, in the loop

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the loop's own thread."""
        return self._outlet.inbox.here

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._outlet.inbox.loop

    @property
    def clock(self) -> Clock:
        return self._outlet.clock

    def resume(self, made: Made) -> None:
        """Go on from an earlier attempt's output. Before anything is told."""
        self._pieces, self._text_only, self._apart = list(made.pieces), made.is_text, set(made.apart)
        self._first_index = made.next_index - len(made.pieces)
        self._saved_items = len(made.pieces)
        self._emitted = itertools.count(len(made.pieces) + 1)

    def keep(self, type_: str, data: str, then: Callable[[bool], None]) -> None:
        """Tell something, and call `then` with True when the engine has it; with False when it never will."""
        if self.attempt.closed:
            then(False)
            return
        self._draft(type_, data)
        self._kept_calls.append((len(self._drafts) + (self._flying_drafts if self._flying else 0), then))

    @property
    def output(self) -> str | None:
        """What was emitted, as JSON: the strings as one, or the list of items; None when nothing was."""
        return output_json(self._pieces, self._text_only, self._apart)

    @property
    def used(self) -> str | None:
        """What the attempt has used in all, as JSON; None when it told nothing."""
        return encode(self._totals) if self._totals else None

    @property
    def full(self) -> bool:
        return len(self._pieces) - self._saved_items >= BOUND_ITEMS

    def pass_on(self, piece: str, is_text: bool) -> None:
        """Add an item to the output that is JSON already. Who passes on looks at `full`."""
        self._add(piece, is_text)

    def when_room(self, call: Callable[[], None]) -> None:
        """Call this when there is room for another item, or nobody wants one any more."""
        if self.full and self.attempt.reason is None:
            self._room_calls.append(call)
        else:
            call()

    async def room(self) -> None:
        """Until there is room for another item: how a generator that outruns the engine is slowed down."""
        waiter = asyncio.get_running_loop().create_future()
        self.when_room(lambda: None if waiter.done() else waiter.set_result(None))
        await waiter

    def finish(self, then: Callable[[], None]) -> None:
        """Send what is left, then call `then`: at once when all is saved, and also when the lease is lost."""
        if self._progress is not None:
            self._progress.flush()
        if self._queued or self._flying:
            self._clean_call = then
        else:
            then()

    # -- what the writer calls

    def take(self) -> Append:
        """What waits, as one append: everything, if that is not too much at once."""
        self._seal()
        count = _fitting(self._drafts)
        taken, self._drafts = self._drafts[:count], self._drafts[count:]
        self._queued = bool(self._drafts)
        self._flying = True
        self._flying_drafts = count
        self._flying_items = taken[-1][2] if taken else len(self._pieces)
        return Append(self.attempt.assignment.lease, self._next_seq, tuple(draft[:2] for draft in taken))

    def saved(self, next_seq: int) -> None:
        """The engine has what was taken."""
        self._next_seq = next_seq
        self._saved_items = self._flying_items
        if self._kept_calls:
            self._tell_kept()
        self._landed()

    def drop(self) -> None:
        """The lease is lost: nothing more will be written."""
        self._text, self._drafts = [], []
        self._queued = False
        calls, self._kept_calls = self._kept_calls, []
        for _, call in calls:
            call(False)
        self._saved_items = len(self._pieces)
        self._landed()

    def release_waiting(self) -> None:
        """Let go whoever waits for room."""
        calls, self._room_calls = self._room_calls, []
        for call in calls:
            call()

    # -- inside, in the loop

    def _add(self, piece: str, is_text: bool) -> None:
        if self.attempt.closed:
            return
        if self.heard is not None:
            self.heard()
        if is_text:
            self._text.append(piece)
            self._pieces.append(piece)
            if len(self._text) >= MERGE_ITEMS:
                self._seal()
        else:
            self._seal()
            self._text_only = False
            index, mark = self._first_index + len(self._pieces), ""
            if piece.startswith('"'):
                self._apart.add(len(self._pieces))
                mark = ',"item":true'
            self._pieces.append(piece)
            self._drafts.append((OUTPUT_DELTA, f'{{"index":{index},"delta":{piece}{mark}}}', len(self._pieces)))
        self._enqueue()

    def _seal(self) -> None:
        """Make one draft of the strings that wait. Its index is that of the first."""
        if self._text:
            index = self._first_index + len(self._pieces) - len(self._text)
            data = f'{{"index":{index},"delta":"{joined(self._text)}"}}'
            self._drafts.append((OUTPUT_DELTA, data, len(self._pieces)))
            self._text = []

    def _use(self, amounts: Mapping[str, Any]) -> None:
        for name, amount in amounts.items():
            so_far = self._totals.get(name)
            adds = isinstance(amount, int | float) and isinstance(so_far, int | float)
            self._totals[name] = so_far + amount if adds else amount
        self._draft(USAGE, encode(self._totals))

    def _draft_progress(self, data: str) -> None:
        self._draft(PROGRESS, data)

    def _draft(self, type_: str, data: str) -> None:
        if self.attempt.closed:
            return
        self._seal()
        self._drafts.append((type_, data, len(self._pieces)))
        self._enqueue()

    def _enqueue(self) -> None:
        if not self._queued:
            self._queued = True
            if not self._flying:
                self._outlet.enqueue(self)

    def _tell_kept(self) -> None:
        """What was in flight is saved: tell those whose event was in it, and count on for the others."""
        waiting, self._kept_calls = self._kept_calls, []
        for before, call in waiting:
            if before <= self._flying_drafts:
                call(True)
            else:
                self._kept_calls.append((before - self._flying_drafts, call))

    def _landed(self) -> None:
        self._flying = False
        if not self.full:
            self.release_waiting()
        if self._queued:
            self._outlet.enqueue(self)
        elif self._clean_call is not None:
            call, self._clean_call = self._clean_call, None
            call()

    # -- inside, in any thread

    def _in_loop(self, call: Callable[..., None], *args: Any) -> None:
        if self._outlet.inbox.here:
            call(*args)
        else:
            self._outlet.inbox.post(call, *args)

    def _wait_in_thread(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        self._outlet.inbox.post(self.when_room, gate.release)
        gate.acquire()
        self.check_open()
        if self.attempt.reason is not None:
            raise asyncio.CancelledError(self.attempt.reason)

    def check_open(self) -> None:
        if self.attempt.closed:
            raise asyncio.CancelledError("the attempt has ended: nothing more can be told of it")


def _fitting(drafts: list[tuple[str, str, int]]) -> int:
    """How many of them go in one append."""
    size = 0
    for count, (_, data, _) in enumerate(drafts):
        size += len(data)
        if count and size > APPEND_CHARS:
            return count
    return len(drafts)
