"""Records and buckets of one partition: as the scripts take and give them."""

from __future__ import annotations

from collections.abc import Sequence

from ropeway.domain.bucket import GRAIN, Allowance, Spend, allowances, draws_of
from ropeway.domain.errors import OutcomeUnknown
from ropeway.domain.ids import RandomBytes
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.redis.lane import MAX_BYTES, MAX_ITEMS, chunks
from ropeway.engines.redis.link import Arg
from ropeway.engines.redis.partition import Partition

__all__ = [
    "Marked",
    "drop",
    "fetch",
    "mark",
    "owner",
    "place",
    "prune",
    "put",
    "put_size",
    "scan",
    "spend",
    "spend_size",
]

_WORD_BYTES = 8

Marked = tuple[Put, str]
"""A record to be written, and the word by which a repeat of the call is known."""


def place(kind: str, tenant: str) -> str:
    """What a tenant's records of a kind are kept under, all in one partition."""
    return f"{kind} {tenant}"


def owner(wishes: Sequence[Spend]) -> str:
    """What an owner's buckets are kept under, all in one partition."""
    return f"bucket {wishes[0].owner}"


def mark(put: Put, random: RandomBytes) -> Marked:
    """The wish with a word of its own."""
    return put, random(_WORD_BYTES).hex()


def put_size(marked: Marked) -> int:
    """About the bytes that it takes in a script's arguments."""
    return len(marked[0].body) + 200


def spend_size(wishes: Sequence[Spend]) -> int:
    """As much of a script's time as so many bytes of jobs take."""
    return len(wishes) * (MAX_BYTES // MAX_ITEMS)


async def put(
    partition: Partition, batch: Sequence[Marked], wait: tuple[int, int] | None
) -> list[Record | RecordConflict]:
    """`Records.put`, of at most as many as one script may take."""
    args: list[Arg] = []
    for wish, word in batch:
        expected = "" if wish.expected is None else wish.expected
        ttl_ms = "" if wish.ttl_ms is None else wish.ttl_ms
        args += (_place(wish.key), wish.key.id, expected, ttl_ms, word, wish.body)
    reply = await partition.call("record_put", *args, wait=wait)
    answers = [_answer(wish, told) for (wish, _), told in zip(batch, reply.values, strict=True)]
    if reply.repeated and any(isinstance(answer, RecordConflict) for answer in answers):
        # With what was there before, or with a write over ours: nobody can tell.
        raise OutcomeUnknown("the reply to record_put was lost, and the records have been written since")
    return answers


def _answer(wish: Put, told: list[str] | str) -> Record | RecordConflict:
    if isinstance(told, str):
        return RecordConflict(_record(wish.key, told))
    version, created, expires = told
    return Record(wish.key, wish.body, int(version), int(created), _instant(expires))


async def fetch(partition: Partition, keys: Sequence[RecordKey]) -> list[Record | None]:
    """`Records.fetch`, of at most as many as one script may take."""
    args = [text for key in keys for text in (_place(key), key.id)]
    reply = await partition.call("record_get", *args)
    return [_record(key, row) for key, row in zip(keys, reply.values, strict=True)]


async def scan(partition: Partition, kind: str, tenant: str, after: str, limit: int) -> list[Record]:
    """`Records.scan`."""
    found: list[Record] = []
    while len(found) < limit:
        wanted = min(limit - len(found), MAX_ITEMS)
        reply = await partition.call("record_scan", place(kind, tenant), after, wanted, MAX_BYTES)
        after, *told = reply.values
        records = (_record(RecordKey(kind, tenant, told[n]), told[n + 1]) for n in range(0, len(told), 2))
        found += [record for record in records if record is not None]
        if not after:
            break
    return found


async def drop(partition: Partition, keys: Sequence[RecordKey]) -> list[bool]:
    """`Records.drop`. Not repeated after a lost reply: it would tell that the record was never there."""
    answers: list[bool] = []
    for part in chunks(keys):
        args = [text for key in part for text in (_place(key), key.id)]
        reply = await partition.call("record_drop", "named", *args, repeat=False)
        answers += [was_there == 1 for was_there in reply.values]
    return answers


async def prune(partition: Partition, limit: int) -> None:
    """The records' part of `Upkeep.prune`; buckets go by themselves."""
    left = limit
    while left > 0:
        wanted = min(left, MAX_ITEMS)
        gone: int = (await partition.call("record_drop", "past", wanted)).values[0]
        if gone < wanted:
            break
        left -= gone


async def spend(partition: Partition, calls: Sequence[Sequence[Spend]]) -> list[list[Allowance]]:
    """`Records.spend`, of several calls. Not repeated after a lost reply: it might take the amounts again."""
    drawn = [draws_of(wishes) for wishes in calls]
    args: list[Arg] = [repr(GRAIN)]
    for draws in drawn:
        args.append(len(draws))
        for draw in draws:
            numbers = (draw.per_s, draw.capacity, draw.wanted, draw.forced)
            args += (draw.bucket, *(repr(float(number)) for number in numbers))
    reply = await partition.call("spend", *args, repeat=False)
    answers: list[list[Allowance]] = []
    for wishes, draws, (granted, *levels) in zip(calls, drawn, reply.values, strict=True):
        left = {draw.bucket: float(level) for draw, level in zip(draws, levels, strict=True)}
        answers.append(allowances(wishes, draws, granted == 1, left))
    return answers


def _place(key: RecordKey) -> str:
    return place(key.kind, key.tenant)


def _record(key: RecordKey, row: str) -> Record | None:
    if not row:
        return None
    version, created, expires, _, body = row.split(" ", 4)
    return Record(key, body, int(version), int(created), _instant(expires))


def _instant(text: str) -> int | None:
    return None if text == "-" else int(text)
