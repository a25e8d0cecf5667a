"""The events of a response, made from its job's log: numbered from 0, the same on every gateway and every time.

1. A reader who has the events up to a number gets the rest: all are made again, and those are left out.
2. When a new attempt begins, items that were begun end as `incomplete` and the new ones take the places after them; the
   response at the end holds the items of the last attempt alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.errors import JobFailed
from ropeway.domain.event import (
    CANCELLED,
    FAILED,
    OUTPUT_DELTA,
    OUTPUT_RESET,
    QUEUED,
    SNAPSHOT,
    STARTED,
    SUCCEEDED,
    Event,
)
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.serving.openai.answers import piece_of, raw_piece
from ropeway.serving.openai.response_items import Addition, Item, Items
from ropeway.serving.openai.response_view import response_of, shell_of

__all__ = ["NOTHING_SEEN", "ResponseFold", "items_of"]

NOTHING_SEEN = -1

_DELTAS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    None: "response.function_call_arguments",
}
_TEXT_MEMBER = {"refusal": "refusal", None: "arguments"}
_ENDINGS = {State.failed: "response.failed", State.cancelled: "response.cancelled"}

_WORDS = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"%b","output_index":%d,'
    b'"content_index":0,"delta":%b,"logprobs":[]}\n\n'
)

_encode = msgspec.json.Encoder().encode
_decode_text = msgspec.json.Decoder(str).decode


class ResponseFold:
    """The stream of a response's events. `items`: those of the present attempt."""

    needs_job = True

    def __init__(self, job: Job, after: int = NOTHING_SEEN) -> None:
        self.ended = False
        self._job_id = job.id
        self._suffix = job.id.removeprefix("job_")
        self._shell = shell_of(job)
        self._after = after
        self._next = 0
        self._out = bytearray()
        self._started = False
        self.items = Items(self._suffix, 0)

    def add(self, event: Event, job: Job | None = None) -> bytes:
        """What goes out for the next event of the log; the last one is told with the job as it ended."""
        kind = event.type
        if kind == OUTPUT_DELTA:
            self._delta(event)
        elif kind == QUEUED:
            self._tell("response.created", response=self._shell)
            if self._shell["background"]:
                self._tell("response.queued", response=self._shell)
        elif kind == STARTED:
            self._begin(event)
        elif kind in (OUTPUT_RESET, SNAPSHOT):
            self._begin_again(event)
        elif kind in (SUCCEEDED, FAILED, CANCELLED) and job is not None:
            self._end(job)
        out = bytes(self._out)
        self._out.clear()
        return out

    def interrupted(self) -> bytes:
        """Nothing: a reader whose stream ends before the response does asks for the rest."""
        return b""

    def _begin(self, event: Event) -> None:
        if not self.items.all:  # else a reset follows, which needs those that were begun
            self.items = Items(self._suffix, event.cursor.epoch, self.items.first)
        if not self._started:
            self._started = True
            self._tell("response.in_progress", response={**self._shell, "status": "in_progress"})

    def _begin_again(self, event: Event) -> None:
        self._close(self.items.close_all(), "incomplete")
        self.items = Items(self._suffix, event.cursor.epoch, self.items.first + len(self.items.all))

    def _delta(self, event: Event) -> None:
        item = self.items.writing
        if item is None or not self._add_words(item, event.data):
            self._add_piece(event)

    def _add_words(self, item: Item, data: str) -> bool:
        """The usual case by the shortest way: more words of the same message, as they stand in the event."""
        try:
            raw = raw_piece(data)
            if raw[:1] != b'"':
                return False
            item.grow(_decode_text(raw))
        except msgspec.MsgspecError:
            return False
        number, self._next = self._next, self._next + 1
        if number > self._after:
            self._out += _WORDS % (number, item.id.encode(), item.index, raw)
        return True

    def _add_piece(self, event: Event) -> None:
        try:
            additions = self.items.add(piece_of(self._job_id, event.data))
        except JobFailed:
            return  # the end tells of it
        for addition in additions:
            self._close(addition.closed, "completed")
            if addition.is_new:
                self._open(addition.item)
            if addition.text:
                self._grow(addition)

    def _open(self, item: Item) -> None:
        self._tell("response.output_item.added", output_index=item.index, item=item.shown("in_progress", empty=True))
        if item.part is not None:
            self._tell_of(item, "response.content_part.added", part=item.content_part(empty=True))

    def _grow(self, addition: Addition) -> None:
        item, more = addition.item, {"delta": addition.text}
        if item.part == "output_text":
            self._tell_of(item, "response.output_text.delta", **more, logprobs=addition.logprobs)
        else:
            self._tell_of(item, f"{_DELTAS[item.part]}.delta", **more)

    def _close(self, items: list[Item], status: str) -> None:
        for item in items:
            more: dict[str, Any] = {_TEXT_MEMBER.get(item.part, "text"): item.text}
            if item.part == "output_text":
                more["logprobs"] = item.logprobs
            if item.part is None:
                more["name"] = item.name
            self._tell_of(item, f"{_DELTAS[item.part]}.done", **more)
            if item.part is not None:
                self._tell_of(item, "response.content_part.done", part=item.content_part())
            self._tell("response.output_item.done", output_index=item.index, item=item.shown(status))

    def _end(self, job: Job) -> None:
        self.ended = True
        self._close(self.items.close_all(), "completed" if job.state is State.succeeded else "incomplete")
        try:
            response = response_of(job, self.items)
        except JobFailed as error:
            told = {"code": "server_error", "message": error.error.message}
            response = {**self._shell, "status": "failed", "error": told}
        self._tell(_ENDINGS.get(job.state) or f"response.{response['status']}", response=response)

    def _tell_of(self, item: Item, kind: str, **more: Any) -> None:
        """An event of an item, or of its one part."""
        part = {} if item.part is None else {"content_index": 0}
        self._tell(kind, item_id=item.id, output_index=item.index, **part, **more)

    def _tell(self, kind: str, **members: Any) -> None:
        number, self._next = self._next, self._next + 1
        if number > self._after:
            body = _encode({"type": kind, "sequence_number": number, **members})
            self._out += b"event: %s\ndata: %s\n\n" % (kind.encode(), body)


def items_of(job: Job, events: list[Event]) -> Items:
    """What a job had made by the end of these events."""
    fold = ResponseFold(job)
    for event in events:
        fold.add(event)
    return fold.items
