"""Results that are used again: what a task declares, the key that a submit's content comes to, and who serves whom.

A job that carries a `CacheKey` takes that key in the step of its submit, within its tenant. While it lives, and for as
long as its result is fresh, a submit with the same key is answered with it: nothing runs, and its log is there from the
start. A job that failed, was cancelled or asked to stop, or is gone serves nobody; the next submit takes the key.

    waits, runs          joined, unless the new one has the higher priority and this one still waits
    succeeded            a hit, for as long as both submits' time to live says, counted from its end
    failed, cancelled    not served

Those who share a live job are counted in its `joined`. A cancel takes one of them away, and the others keep the job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ropeway.domain.file import referred
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import WAITING, State

__all__ = [
    "DEFAULT_TTL_S",
    "HITS",
    "JOINS",
    "SHARERS_KEPT",
    "Cache",
    "claim_of",
    "content_key",
    "counted_as",
    "home_of",
    "keyed_id",
    "serves",
]

DEFAULT_TTL_S = 3_600.0
HITS, JOINS = "cache_hits", "cache_joins"
"""What a served submit is counted as in its tenant's account: by a result that was there, or by a job under way."""

SHARERS_KEPT = 8
"""So many of those who came to a shared job or left it last are known: what is sent again by them counts once."""

_KEY_BYTES = 16
_MARK = "k"  # stands in no id that is hex digits
_HOME_DIGITS = 8
_VERSION_LIMIT = 128
_PATHS_LIMIT = 64

_encode = msgspec.json.Encoder(order="deterministic").encode


class Cache(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a task's results may be used again: `@app.task(cache=Cache(ttl_s=3600))`.

    Attributes:
        ttl_s: for how long, in seconds from the end of the job.
        version: part of every key: change it when the task or its model changes, and no older result is used.
        fields: the members of the input that count; all of them when there are none here. `a.b` is member b of a.
        ignore: members that do not count, though the others do.

    Raises ValueError for what cannot be.
    """

    ttl_s: float = DEFAULT_TTL_S
    version: str = ""
    fields: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.ttl_s < math.inf:
            raise ValueError(f"a cache's ttl_s must be above 0, not {self.ttl_s!r}")
        if len(self.version) > _VERSION_LIMIT:
            raise ValueError(f"a cache's version has at most {_VERSION_LIMIT} characters")
        for path in (*self.fields, *self.ignore):
            if not path or not all(path.split(".")):
                raise ValueError(f"{path!r} names no member of an input")
        if len(self.fields) + len(self.ignore) > _PATHS_LIMIT:
            raise ValueError(f"a cache names at most {_PATHS_LIMIT} members")


def content_key(task: str, cache: Cache, input_json: str | bytes, files: Mapping[str, str] | None = None) -> str:
    """32 hex digits, equal for inputs that are the same to the task, whatever their spacing and order.

    `files` is what stands for each file in place of its id, so that equal bytes are equal inputs.
    Raises what msgspec does for an input that is no JSON.
    """
    value = msgspec.json.decode(input_json)
    picked = _only(value, cache.fields) if cache.fields else value
    for path in cache.ignore:
        picked = _without(picked, path.split("."))
    if files:
        picked = _with_digests(picked, files)
    text = _encode([task, cache.version, picked])
    return hashlib.blake2b(text, digest_size=_KEY_BYTES).hexdigest()


def keyed_id(job_id: str, key: str) -> str:
    """The id of a job that takes a key: whoever spreads jobs over several places finds those of a key in one."""
    return f"{job_id}{_MARK}{key[:_HOME_DIGITS]}"


def home_of(job_id: str) -> str:
    """What a job's place goes by: the same for all jobs of a key; any other job's own id."""
    head, mark, tail = job_id.rpartition(_MARK)
    is_keyed = mark and head and len(tail) == _HOME_DIGITS and all(char in "0123456789abcdef" for char in tail)
    return tail if is_keyed else job_id


def claim_of(key: str) -> str:
    """Under what a key is claimed, among the tenant's idempotency keys: none of those begins with a space."""
    return f" {key}"


def serves(known: Job, kept_ms: int, new: NewJob, now_ms: int) -> bool:
    """Whether the job that holds a key, for `kept_ms` beyond its end, is the answer to another submit of that key."""
    asked = new.cache
    if asked is None or asked.fresh or known.cancel_requested_at_ms is not None:
        return False
    if known.state is State.succeeded:
        return now_ms < (known.finished_at_ms or 0) + min(kept_ms, asked.ttl_ms)
    if known.state in WAITING:
        return new.priority <= known.priority
    return known.state is State.running


def counted_as(served_by: Job) -> str:
    """What a submit that was answered with this job is counted as."""
    return HITS if served_by.state.terminal else JOINS


def _only(value: Any, paths: tuple[str, ...]) -> Any:
    """The named members, those that are there."""
    found = ((path, _member(value, path.split("."))) for path in paths)
    return {path: member for path, member in found if member is not msgspec.UNSET}


def _member(value: Any, names: list[str]) -> Any:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return msgspec.UNSET
        value = value[name]
    return value


def _without(value: Any, names: list[str]) -> Any:
    if not isinstance(value, dict) or names[0] not in value:
        return value
    rest = {name: member for name, member in value.items() if name != names[0]}
    if len(names) > 1:
        rest[names[0]] = _without(value[names[0]], names[1:])
    return rest


def _with_digests(value: Any, files: Mapping[str, str]) -> Any:
    file = referred(value)
    if file is not None:
        return {"$file": files.get(file, file)}
    if isinstance(value, dict):
        return {name: _with_digests(member, files) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_digests(item, files) for item in value]
    return value
