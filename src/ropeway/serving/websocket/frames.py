"""The messages of a socket, subprotocol `ropeway.v1`: JSON objects in text frames, each with its `type`.

    client   submit   ref, job, subscribe, types, idempotency_key     server   ack        ref, job, subscribed, replayed
             subscribe   ref, job_id, after, types                             event      event
             unsubscribe   ref, job_id                                         error      ref, problem, retry_after
             cancel   ref, job_id, reason                                      reconnect  after_ms
             input   ref, job_id, data, key                                    pong       ref
             ping   ref

`ref` is the client's own word for what it asked: the answer repeats it. Unknown members are refused, as on the routes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.client.wire import JobBody
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import START, Cursor
from ropeway.serving.bodies import misshapen
from ropeway.serving.problems import Problem
from ropeway.serving.strict import check_depth, check_members, explain

__all__ = [
    "PATH",
    "Ack",
    "Asked",
    "Cancel",
    "ErrorTold",
    "Input",
    "Message",
    "Ping",
    "Pong",
    "Reconnect",
    "Ref",
    "Submit",
    "Subscribe",
    "Types",
    "Unsubscribe",
    "encode",
    "event_message",
    "read_message",
    "ref_in",
    "told_s",
]

PATH = "/v1/ws"
REF_LIMIT = 255

Ref = str | int | None
Types = tuple[str, ...] | None


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    ref: Ref = None

    def __post_init__(self) -> None:
        if isinstance(self.ref, str) and len(self.ref) > REF_LIMIT:
            raise ValueError(f"ref has at most {REF_LIMIT} characters")


class Submit(_Asked, frozen=True, tag="submit", kw_only=True):
    """Submit a job: `job` is what `POST /v1/jobs` takes. With `subscribe` its events follow the ack."""

    job: msgspec.Raw
    subscribe: bool = True
    types: Types = None
    idempotency_key: str | None = None


class Subscribe(_Asked, frozen=True, tag="subscribe", kw_only=True):
    """Follow a job, from the beginning of its log or strictly after an event id."""

    job_id: str
    after: str | None = None
    types: Types = None

    @property
    def cursor(self) -> Cursor:
        """Where to begin. Raises InvalidRequest."""
        if not self.after:
            return START
        cursor = Cursor.parse(self.after)
        if max(cursor) >= 1 << 62:  # epochs and numbers have 64 bits in every store
            raise InvalidRequest(f"{self.after[:40]!r} is not an event id", param="after")
        return cursor


class Unsubscribe(_Asked, frozen=True, tag="unsubscribe", kw_only=True):
    """Follow a job no more."""

    job_id: str


class Cancel(_Asked, frozen=True, tag="cancel", kw_only=True):
    """Cancel a job; `for_all`: also for those who share it."""

    job_id: str
    reason: str | None = None
    for_all: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reason is not None and (len(self.reason) > 1000 or "\x00" in self.reason):
            raise ValueError("a reason has at most 1000 characters, none of them NUL")


class Input(_Asked, frozen=True, tag="input", kw_only=True):
    """Send data to a job that has begun. `key` makes it safe to repeat."""

    job_id: str
    data: msgspec.Raw
    key: str | None = None


class Ping(_Asked, frozen=True, tag="ping"):
    """Is anybody there?"""


Asked = Submit | Subscribe | Unsubscribe | Cancel | Input | Ping


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="type"):
    """It was done. `subscribed`: events of the job follow; not so when its log is at its end."""

    ref: Ref
    job: JobBody | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    subscribed: bool | msgspec.UnsetType = msgspec.UNSET
    replayed: bool | msgspec.UnsetType = msgspec.UNSET


class ErrorTold(msgspec.Struct, frozen=True, tag="error", tag_field="type"):
    """It was not done, or (with `job_id`) a subscription ended. `retry_after`: seconds."""

    ref: Ref
    problem: Problem
    retry_after: float | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET


class Reconnect(msgspec.Struct, frozen=True, tag="reconnect", tag_field="type"):
    """This gateway stops: open a socket again, elsewhere maybe, and subscribe after the last event id seen."""

    after_ms: int


class Pong(msgspec.Struct, frozen=True, tag="pong", tag_field="type"):
    """Somebody is there."""

    ref: Ref


Message = Ack | ErrorTold | Reconnect | Pong

_decode = msgspec.json.Decoder(Asked).decode
_encode = msgspec.json.Encoder().encode


class _Ref(msgspec.Struct):
    ref: Any = None


_decode_ref = msgspec.json.Decoder(_Ref).decode


def read_message(text: str, max_depth: int) -> Asked:
    """What a client asks. Raises InvalidRequest, and InputInvalid for a member that is named twice."""
    body = text.encode()
    check_depth(body, max_depth)
    try:
        asked: Asked = _decode(body)
    except msgspec.ValidationError as error:
        raise misshapen(error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise explain(body, error) from error
    if not isinstance(asked, Submit):  # whose job is checked as a request's body is, with better words
        check_members(body)
    return asked


def ref_in(text: str) -> Ref:
    """The `ref` of a message that cannot be read otherwise, so that its client knows which it was."""
    try:
        ref = _decode_ref(text).ref
    except (msgspec.DecodeError, RecursionError):
        return None
    return ref[:REF_LIMIT] if isinstance(ref, str) else ref if type(ref) is int else None


def told_s(after_s: float | None) -> float | msgspec.UnsetType:
    """Seconds until a retry as a message has them: no member when nothing is known."""
    return msgspec.UNSET if after_s is None else round(after_s, 3)


def encode(message: Message) -> str:
    """The message as it is sent."""
    return _encode(message).decode()


def event_message(envelope: bytes) -> str:
    """An event as it is sent: the envelope of SSE and NDJSON in a member."""
    return f'{{"type":"event","event":{envelope.decode()}}}'
