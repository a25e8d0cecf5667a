"""Records: small documents under compare-and-set, listed in order, that go when their time is over."""

from __future__ import annotations

import asyncio

from ropeway.domain.errors import InvalidRequest, PayloadTooLarge
from ropeway.domain.record import MAX_BODY_BYTES, Put, Record, RecordConflict, RecordKey
from ropeway.testing.bench import TENANT, Bench, as_
from ropeway.testing.conformance.registry import durable_promise, promise

__all__: list[str] = []

KIND = "file"


def key(id_: str, tenant: str = TENANT, kind: str = KIND) -> RecordKey:
    return RecordKey(kind, tenant, id_)


async def put(
    bench: Bench, id_: str, body: str = "{}", expected: int | None = None, ttl_ms: int | None = None
) -> Record:
    """Write one record, which must be accepted."""
    return as_(Record, (await bench.engine.put([Put(key(id_), body, expected, ttl_ms)]))[0])


async def ids(bench: Bench, after: str = "", limit: int = 100, tenant: str = TENANT, kind: str = KIND) -> list[str]:
    return [record.key.id for record in await bench.engine.scan(kind, tenant, after, limit)]


@promise
async def a_record_is_kept_as_it_was_put(bench: Bench) -> None:
    """Put answers with what fetch and scan then give, whatever printable characters its names and body have."""
    strange = RecordKey("a.kind", "Tenant_1", "ключ:{x}/%*~🚠|'\"\\")
    body = '{"text":"— 🚠 \\"quoted\\"\\n","n":[1,2.5,null],"nul":"\\u0000"}'
    answer = (await bench.engine.put([Put(strange, body)]))[0]
    assert answer == Record(strange, body, 1, bench.clock.now_ms(), None)
    assert await bench.engine.fetch([strange, key("absent"), strange]) == [answer, None, answer]
    assert await bench.engine.scan("a.kind", "Tenant_1") == [answer]


@promise
async def versions_rise_with_every_write(bench: Bench) -> None:
    """A write keeps the time of the first, and counts on; expecting no version it goes over whatever is there."""
    first = await put(bench, "f", '"a"')
    bench.clock.advance(50)
    second, third = await put(bench, "f", '"b"', 1), await put(bench, "f", '"c"')
    assert [first.version, second.version, third.version] == [1, 2, 3]
    assert {first.created_at_ms, second.created_at_ms, third.created_at_ms} == {first.created_at_ms}
    assert await bench.engine.fetch([key("f")]) == [third]


@promise
async def a_write_to_another_version_conflicts(bench: Bench) -> None:
    """It tells the record as it is, changes nothing, and stops no other of its batch; 0 is for one not there."""
    there = await put(bench, "there")
    answers = await bench.engine.put(
        [
            Put(key("there"), '"late"', 0),
            Put(key("there"), '"early"', 2),
            Put(key("absent"), '"x"', 1),
            Put(key("new"), '"x"', 0),
            Put(key("there"), '"right"', 1),
            Put(key("there"), '"again"', 1),
        ]
    )
    right = Record(key("there"), '"right"', 2, there.created_at_ms)
    new = Record(key("new"), '"x"', 1, bench.clock.now_ms())
    assert answers == [
        RecordConflict(there), RecordConflict(there), RecordConflict(None), new, right, RecordConflict(right),
    ]  # fmt: skip
    assert await bench.engine.fetch([key("there"), key("absent"), key("new")]) == [right, None, new]


@promise
async def a_batch_is_written_in_its_order(bench: Bench) -> None:
    """A record may be written several times in a batch: each sees the one before."""
    answers = await bench.engine.put([Put(key("f"), f"{n}", n) for n in range(5)])
    assert [(as_(Record, answer).version, as_(Record, answer).body) for answer in answers] == [
        (n + 1, f"{n}") for n in range(5)
    ]
    assert (await bench.engine.fetch([key("f")])) == [answers[-1]]


@promise
async def records_are_apart(bench: Bench) -> None:
    """Kind, tenant and id together name a record: one that shares two of them, or reads alike, is another."""
    keys = [
        key("f"), key("f", "rival"), key("f", kind="batch"), key("f", ""), key("g"),
        RecordKey("a", "b", "c"), RecordKey("a", "", "b:c"), RecordKey("a:b", "c", "d"), RecordKey("a", "b:c", "d"),
    ]  # fmt: skip
    await bench.engine.put([Put(each, f"{n}") for n, each in enumerate(keys)])
    found = await bench.engine.fetch(keys)
    assert [as_(Record, record).body for record in found] == [f"{n}" for n in range(len(keys))]
    assert await ids(bench, tenant="rival") == ["f"]
    assert await ids(bench, tenant="") == ["f"]
    assert await ids(bench) == ["f", "g"]
    assert await bench.engine.drop([key("f", "rival")]) == [True]
    assert await ids(bench, tenant="rival") == []
    assert await ids(bench) == ["f", "g"]


@promise
async def scans_go_by_id(bench: Bench) -> None:
    """In the order of code points, strictly after a given one, at most so many: pages join without gap or repeat."""
    wanted = sorted(["a", "a!", "a/b", "aa", "B", "b", "z", "é", "🚠", "~", "10", "9"])
    await bench.engine.put([Put(key(id_), "{}") for id_ in reversed(wanted)])
    assert await ids(bench) == wanted
    paged: list[str] = []
    while page := await ids(bench, paged[-1] if paged else "", 5):
        assert len(page) <= 5
        paged += page
    assert paged == wanted
    assert await ids(bench, "a/") == wanted[wanted.index("a/b") :]
    assert await ids(bench, kind="nothing") == []


@promise
async def long_lists_are_listed(bench: Bench) -> None:
    """A scan gives as many as it is asked for, past those that have expired."""
    await bench.engine.put(
        [Put(key(f"{n:04}"), '"' + "x" * 500 + '"', ttl_ms=9 if n < 700 else None) for n in range(1000)]
    )
    bench.clock.advance(9)
    assert await ids(bench, limit=250) == [f"{n:04}" for n in range(700, 950)]
    assert await ids(bench, "0949", limit=250) == [f"{n:04}" for n in range(950, 1000)]


@promise
async def a_record_expires(bench: Bench) -> None:
    """From its time on it is as one that is not there, pruned or not; each write sets the time anew."""
    await put(bench, "f", ttl_ms=1000)
    bench.clock.advance(999)
    assert [record.expires_at_ms for record in await bench.engine.scan(KIND, TENANT)] == [bench.clock.now_ms() + 1]
    kept = await put(bench, "f", ttl_ms=10)
    assert (kept.version, kept.expires_at_ms) == (2, bench.clock.now_ms() + 10)
    for pruned in (False, True):
        await put(bench, "kept", ttl_ms=10)
        await put(bench, "kept")
        await put(bench, "f", ttl_ms=10)
        bench.clock.advance(10)
        if pruned:
            await bench.engine.prune(1000)
        assert await bench.engine.fetch([key("f")]) == [None]
        assert await ids(bench) == ["kept"]
        assert await bench.engine.drop([key("f")]) == [False]
        assert (await put(bench, "f", expected=0)).version == 1
        assert await bench.engine.drop([key("f")]) == [True]


@promise
async def a_pruned_record_takes_others_along_in_nothing(bench: Bench) -> None:
    """A prune takes what has expired, and leaves what was written over it since."""
    await bench.engine.put([Put(key(f"{n}"), "{}", ttl_ms=5) for n in range(10)])
    bench.clock.advance(5)
    again = await bench.engine.put([Put(key("3"), '"again"', 0), Put(key("4"), '"soon"', 0, 1)])
    assert await bench.engine.prune(1000) == 0
    assert await bench.engine.scan(KIND, TENANT) == again
    bench.clock.advance(1)
    await bench.engine.prune(1000)
    assert await ids(bench) == ["3"]


@promise
async def a_dropped_record_is_gone(bench: Bench) -> None:
    """Drop tells of each whether it was there; dropped twice it was once. It begins anew at version 1."""
    await bench.engine.put([Put(key("a"), "1"), Put(key("a"), "2"), Put(key("b"), "1")])
    assert await bench.engine.drop([key("a"), key("absent"), key("a"), key("b")]) == [True, False, False, True]
    assert await bench.engine.fetch([key("a"), key("b")]) == [None, None]
    assert await ids(bench) == []
    assert (await put(bench, "a", expected=0)).version == 1


@promise
async def what_can_be_no_record_is_refused(bench: Bench) -> None:
    """Names with spaces, unprintable or empty, and bodies above 1 MiB: nothing of the batch is written."""
    good = Put(key("good"), "{}")
    for bad in (
        key(""),
        key("a b"),
        key("a\n"),
        key("a\u00a0b"),
        key("\ud800"),
        key("x" * 256),
        key("a", "b c"),
        key("a", kind=""),
    ):
        try:
            await bench.engine.put([good, Put(bad, "{}")])
        except InvalidRequest:
            pass
        else:
            raise AssertionError(f"{bad} was accepted")
        assert await bench.engine.fetch([bad, key("good")]) == [None, None]
        assert await bench.engine.drop([bad]) == [False]
    whole = '"' + "é" * (MAX_BODY_BYTES // 2 - 1) + '"'
    try:
        await bench.engine.put([good, Put(key("big"), whole + " ")])
    except PayloadTooLarge:
        pass
    else:
        raise AssertionError("a body above the limit was accepted")
    assert await ids(bench) == []
    assert (await put(bench, "big", whole)).body == whole
    assert [record.body for record in await bench.engine.scan(KIND, TENANT)] == [whole]


@promise
async def of_many_writers_each_adds_one_version(bench: Bench) -> None:
    """Writers that read, add one and write what they read: no addition is lost."""

    async def add_one() -> None:
        while True:
            found = (await bench.engine.fetch([key("sum")]))[0]
            body, version = ("0", 0) if found is None else (found.body, found.version)
            if isinstance((await bench.engine.put([Put(key("sum"), str(int(body) + 1), version)]))[0], Record):
                return

    await asyncio.gather(*(add_one() for _ in range(20)))
    total = as_(Record, (await bench.engine.fetch([key("sum")]))[0])
    assert (total.body, total.version) == ("20", 20)


@promise
async def one_of_many_makes_a_record(bench: Bench) -> None:
    """Of many that put what must not be there, at the same time, exactly one does."""
    answers = await asyncio.gather(*(bench.engine.put([Put(key("f"), f"{n}", 0)]) for n in range(20)))
    made = [as_(Record, answer[0]) for answer in answers if isinstance(answer[0], Record)]
    assert len(made) == 1
    assert {as_(RecordConflict, a[0]).current for a in answers if isinstance(a[0], RecordConflict)} == {made[0]}


@durable_promise
async def records_outlive_their_engine(bench: Bench) -> None:
    """What was put and dropped is so for the next engine on the store, and for one beside."""
    kept = [await put(bench, "a", '"x"'), await put(bench, "b", ttl_ms=10_000)]
    await put(bench, "gone")
    await bench.engine.drop([key("gone")])
    await bench.reopen()
    assert await bench.engine.scan(KIND, TENANT) == kept
