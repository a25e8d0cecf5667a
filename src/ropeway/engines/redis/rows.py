"""Jobs as they lie in their hashes: what may change under the Job's own field names, what may not in one `head`.

`head` is `queue tenant task band number rank created_at_ms keep failed_keep size`: names have no spaces. A field at its
first value (version 1, attempt 0, queued, ...) is not stored: a waiting job is three fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ropeway.domain.event import Cursor, Event
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit
from ropeway.domain.rank import Priority

__all__ = [
    "Stored",
    "differences",
    "events_from",
    "events_text",
    "job_from",
    "keeps",
    "limits_text",
    "number_text",
    "options_from",
    "options_text",
    "past_from",
    "past_text",
]

_FIRST: dict[str, int] = {
    "version": 1,
    "attempt": 0,
    "crashes": 0,
    "runs": 0,
    "epoch": 0,
    "seq": 2,
    "started_epoch": 0,
    "joined": 0,
    "woken_epoch": 0,
}
_INSTANTS = [
    "run_at_ms",
    "queue_deadline_ms",
    "started_at_ms",
    "first_output_at_ms",
    "finished_at_ms",
    "expires_at_ms",
    "cancel_requested_at_ms",
]
_TEXTS = [
    "cancel_reason",
    "worker",
    "session",
    "token",
    "last_outcome",
    "progress",
    "output",
    "error",
    "usage",
    "retry_of",
    "sharers",
    "parked",
]
_CHANGING = [*_FIRST, *_INSTANTS, *_TEXTS, "state"]

_CACHE_SIZE = 512

_encode = msgspec.json.Encoder().encode
_decode_options = msgspec.json.Decoder(JobOptions).decode
_decode_entries = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode_past = msgspec.json.Decoder(list[tuple[int, int, str, int, int, str]]).decode
_options_by_text: dict[str, JobOptions] = {}
_texts_by_identity: dict[int, tuple[JobOptions, str]] = {}


class Stored:
    """A job's hash, read: the job, and what only the store keeps of it."""

    __slots__ = ("job", "number", "past")

    def __init__(self, job: Job, number: int, past: str) -> None:
        self.job = job
        self.number = number
        self.past = past


def job_from(job_id: str, flat: Sequence[str]) -> Stored | None:
    """The job in a hash's fields and values, one after the other; None when there are none."""
    if not flat:
        return None
    fields: dict[str, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    queue, tenant, task, band, number, rank, created, *_ = fields["head"].split(" ")
    values: dict[str, Any] = {name: int(fields.get(name, first)) for name, first in _FIRST.items()}
    for name in _INSTANTS:
        if name in fields:
            values[name] = int(fields[name])
    for name in _TEXTS:
        if name in fields:
            values[name] = fields[name]
    state = State(fields.get("state", "queued"))
    if state is not State.running:
        values.pop("session", None)  # a commit leaves it in the hash
    job = Job(
        id=job_id,
        tenant=tenant,
        queue=queue,
        task=task,
        input=fields["input"],
        options=options_from(fields.get("options", "")),
        priority=Priority(int(band)),
        state=state,
        rank=float(rank),
        created_at_ms=int(created),
        **values,
    )
    return Stored(job, int(number), fields.get("past", ""))


def differences(old: Job, new: Job) -> tuple[list[str], list[str]]:
    """What to write so that `old`'s hash is `new`'s: fields with their values, and fields to drop."""
    changed: list[str] = []
    dropped: list[str] = []
    for name in _CHANGING:
        value = getattr(new, name)
        if value == getattr(old, name):
            continue
        if value is None or value == _FIRST.get(name):
            dropped.append(name)
        else:
            changed += (name, str(value))
    return changed, dropped


def options_text(options: JobOptions) -> str:
    """The options as JSON; '' for the default ones. Nearly all jobs of a program share a few."""
    known = _texts_by_identity.get(id(options))
    if known is not None and known[0] is options:  # an id is used again once its object is gone
        return known[1]
    text = _encode(options).decode()
    text = "" if text == "{}" else text
    _bound(_texts_by_identity)
    _texts_by_identity[id(options)] = (options, text)
    return text


def options_from(text: str) -> JobOptions:
    """The options that `options_text` wrote."""
    if not text:
        return DEFAULT_OPTIONS
    options = _options_by_text.get(text)
    if options is None:
        _bound(_options_by_text)
        options = _options_by_text[text] = _decode_options(text)
    return options


def keeps(options: JobOptions) -> tuple[int, int]:
    """For how many ms a job is kept after it ended, and after it failed; -1: for ever."""
    return _ms(options.retention_s), _ms(options.failed_retention_s)


@lru_cache(_CACHE_SIZE)
def limits_text(limits: tuple[Limit, ...]) -> str:
    """Limits as the scripts take them: for each `key max_running per_s burst amount`, '-' for none."""
    return " ".join(
        f"{limit.key} {number_text(limit.max_running)} {number_text(limit.per_s)} {number_text(limit.burst)}"
        f" {number_text(limit.amount)}"
        for limit in limits
    )


def number_text(number: float | None) -> str:
    """A number as the scripts take it; '-' for none."""
    return "-" if number is None else repr(number)


def events_text(drafts: Iterable[tuple[str, str]]) -> str:
    """The events of one append, as one stream entry holds them."""
    return _encode(list(drafts)).decode()


def events_from(job_id: str, entries: Iterable[tuple[str, list[str]]]) -> list[Event]:
    """The events in a stream's entries, in their order."""
    events: list[Event] = []
    for entry_id, (_, attempt, _, at_ms, _, text) in entries:
        first = Cursor.parse(entry_id)
        for seq, (type_, data) in enumerate(_decode_entries(text), first.seq):
            events.append(Event(Cursor(first.epoch, seq), type_, job_id, int(attempt), int(at_ms), data))
    return events


def past_text(events: Sequence[Event]) -> str:
    """Openings of attempts that are over. They stand before events that the stream already holds, so not in it."""
    return _encode([(*event.cursor, event.type, event.attempt, event.at_ms, event.data) for event in events]).decode()


def past_from(job_id: str, text: str) -> list[Event]:
    """The events that `past_text` wrote."""
    if not text:
        return []
    return [
        Event(Cursor(epoch, seq), type_, job_id, attempt, at_ms, data)
        for epoch, seq, type_, attempt, at_ms, data in _decode_past(text)
    ]


def _ms(seconds: float | None) -> int:
    return -1 if seconds is None else round(seconds * 1000)


def _bound(cache: dict[Any, Any]) -> None:
    if len(cache) >= _CACHE_SIZE:
        cache.clear()
