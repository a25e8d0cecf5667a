"""The store's own checks: each fault made by hand is found, told and put right, and a store at work shows none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, NamedTuple, cast

import pytest

from redis_harness import RedisHarness, Untidy
from ropeway.domain.bucket import Spend
from ropeway.domain.event import OUTPUT_DELTA, PROGRESS
from ropeway.domain.finding import Finding
from ropeway.domain.job import JobOptions, JobQuery, NewJob
from ropeway.domain.lease import Append, Appended, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit
from ropeway.domain.rank import Priority
from ropeway.domain.record import Put, RecordKey
from ropeway.domain.worker import WorkerCard
from ropeway.engines.redis import RedisEngine
from ropeway.engines.redis.fsck import inspect, repair
from ropeway.engines.redis.partition import Partition
from ropeway.testing.bench import SESSION, TENANT, Bench
from ropeway.testing.clock import START_MS

ONE, RATE = Limit("gpt", max_running=1), Limit("calls", per_s=1.0, burst=5.0)


class Store:
    """A bench, its one partition, and raw commands on it. In a command `@` stands for the partition's root."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        engine = cast(RedisEngine, bench.engine)
        self.partition: Partition = engine.partitions[0]

    async def raw(self, command: str) -> Any:
        """An answer of the server to a command as a person types it; a word's `~` is a space."""
        link = await self.partition.route.link(asyncio.get_running_loop().time() + 5)
        answer = await link.do(*(await self.words(command)))
        assert not isinstance(answer, Exception), answer
        return answer

    async def words(self, command: str) -> list[str]:
        """With `<id>` for that job's ticket."""
        words = [word.replace("@", f"{self.partition.root}:").replace("~", " ") for word in command.split()]
        return [await self.ticket(word[1:-1]) if word.startswith("<") else word for word in words]

    async def ticket(self, job_id: str) -> str:
        return f"{await self.number(job_id):013x}{job_id}"

    async def number(self, job_id: str) -> int:
        head = await self.raw(f"HGET @job:{job_id} head")
        return int(head.split()[4])

    async def inspect(self) -> list[Finding]:
        return await inspect(self.partition)

    async def repair(self) -> list[Finding]:
        return await repair(self.partition)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """One job in every state that there is, and what belongs to each."""
    bench = await Bench.start(RedisHarness())
    for kind in ("succeeded", "failed"):
        held = await bench.start_job(kind)
        await bench.append(held, 1, (OUTPUT_DELTA, '"once"'), (OUTPUT_DELTA, '"more"'))
        await bench.commit(held, kind, output='"all"')
    held = await bench.start_job("counted")
    await bench.commit(held, usage='{"tokens":1}')
    await bench.start_job("running")
    await bench.append(await bench.start_job("streaming"), 1, (PROGRESS, "1"))
    await bench.start_job("stopping")
    await bench.cancel("stopping")
    retried = await bench.start_job("retried")
    await bench.commit(retried, "retry", delay_ms=90_000)
    await bench.add("keyed", idempotency_key="k1", fingerprint="f")
    await bench.add("late", options=JobOptions(queue_timeout_s=60))
    await bench.add("later", delay_ms=60_000)
    await bench.add("gone")
    await bench.cancel("gone")
    await bench.add("queued")
    for name in ("limited", "waits", "waits-too"):
        await bench.add(name, queue="tight", options=JobOptions(limits=(ONE,)))
    assert len(await bench.lease(10, queues=("tight",))) == 1
    await bench.add("rated", queue="tight", options=JobOptions(limits=(RATE,)))
    await bench.commit((await bench.lease(queues=("tight",)))[0])
    await bench.engine.put([Put(RecordKey("file", TENANT, "kept"), "{}")])
    await bench.engine.put([Put(RecordKey("file", "", "ends"), "{}", ttl_ms=60_000)])
    await bench.engine.spend([Spend("acme/calls", 5, 1, 10)])
    yield Store(bench)
    with suppress(Untidy):  # what cannot be put right was left
        await bench.stop()


async def test_a_store_in_order_shows_nothing(store: Store) -> None:
    """Jobs in every state: nothing is wrong, and a repair changes nothing."""
    assert await store.inspect() == []
    before = {job.id: job for job in await all_jobs(store)}
    assert await store.repair() == []
    assert {job.id: job for job in await all_jobs(store)} == before


async def all_jobs(store: Store) -> list[Any]:
    ids = "succeeded failed running streaming stopping retried keyed late later gone queued limited waits waits-too"
    return await store.bench.engine.get(TENANT, ids.split())


class Damage(NamedTuple):
    """Commands that break a store, and what is then found in it: kinds with the end of their keys."""

    name: str
    commands: tuple[str, ...]
    found: tuple[tuple[str, str], ...]

    def told_by(self, findings: list[Finding]) -> bool:
        told = {(each.kind, each.key.partition(":{0}:")[2]) for each in findings}
        return told >= set(self.found)


DAY = START_MS // 86_400_000

REPAIRABLE = [
    Damage("queued, not in line", ("ZREM @ready:chat <queued>",), (("missing", "job:queued"),)),
    Damage("in line at another rank", ("ZADD @ready:chat 1 <queued>",), (("misplaced", "job:queued"),)),
    Damage("in line, running", ("ZADD @ready:chat 1 <running>",), (("stray", "ready:chat"),)),
    Damage("in line, in another queue", ("ZADD @ready:else 1 <queued>",), (("stray", "ready:else"),)),
    Damage("in line, no such job", ("ZADD @ready:chat 1 00000000000ffghost",), (("stray", "ready:chat"),)),
    Damage("in line, under a wrong number", ("ZADD @ready:chat 1 00000000000ffqueued",), (("stray", "ready:chat"),)),
    Damage("scheduled, for no time", ("ZREM @due <later>",), (("missing", "job:later"),)),
    Damage("retried, for no time", ("DEL @due",), (("missing", "job:later"), ("missing", "job:retried"))),
    Damage("due, queued", ("ZADD @due 1 <queued>",), (("stray", "due"),)),
    Damage("deadline, not watched", ("ZREM @late <late>",), (("missing", "job:late"),)),
    Damage("deadline, of none", ("ZADD @late 1 <queued>",), (("stray", "late"),)),
    Damage("ended, kept too long", ("ZREM @ended <succeeded>",), (("missing", "job:succeeded"),)),
    Damage("ended, and live", ("ZADD @ended 99 <queued>",), (("stray", "ended"),)),
    Damage("failed, not on the list", ("ZREM @failed:acme <failed>",), (("missing", "job:failed"),)),
    Damage("on the list, not failed", ("ZADD @failed:acme 1 <queued>",), (("stray", "failed:acme"),)),
    Damage("running, held by nobody", (f"SREM @held:{SESSION} running",), (("missing", "job:running"),)),
    Damage("held, not running", (f"SADD @held:{SESSION} queued",), (("stray", f"held:{SESSION}"),)),
    Damage("asked to stop, untold", (f"SREM @asked:{SESSION} stopping",), (("missing", "job:stopping"),)),
    Damage("told to stop, not asked", (f"SADD @asked:{SESSION} running",), (("stray", f"asked:{SESSION}"),)),
    Damage("told to stop, nobody's", ("SADD @asked:ghost running",), (("stray", "asked:ghost"),)),
    Damage("session without a deadline", (f"ZREM @sessions {SESSION}",), (("session", "job:running"),)),
    Damage("session without its hash", (f"DEL @session:{SESSION}",), (("session", "sessions"),)),
    Damage("hash without a session", ("HSET @session:ghost number 1",), (("orphan", "session:ghost"),)),
    Damage("running under no session", ("HDEL @job:running session",), (("session", "job:running"),)),
    Damage("list with a ghost", ("XADD @all:acme * i ghost",), (("stray", "all:acme"),)),
    Damage("log without a job", ("XADD @log:ghost 1-1 a 1 t 1 e []",), (("orphan", "log:ghost"),)),
    Damage("claim without an end", ("ZREM @claims acme~k1",), (("orphan", "claim:acme k1"),)),
    Damage("claim of nothing", ("ZADD @claims 1 acme~k2",), (("stray", "claims"),)),
    Damage("content key of no job", ("HSET @claim:acme~~c0 job ghost ttl 5",), (("orphan", "claim:acme  c0"),)),
    Damage("content key of another job", ("HSET @claim:acme~~c0 job queued ttl 5",), (("orphan", "claim:acme  c0"),)),
    Damage("queue that is not known", ("SREM @queues chat",), (("queue", "job:queued"),)),
    Damage("queue without a policy", ("HDEL @queue:chat max_depth",), (("queue", "queues"),)),
    Damage("policy without a queue", ("HSET @queue:else max_depth 5",), (("orphan", "queue:else"),)),
    Damage("wake-up without a queue", ("ZADD @wake:ghost 0 1",), (("orphan", "wake:ghost"),)),
    Damage("number set back", ("HSET @meta number 5",), (("number", "job:queued"),)),
    Damage("count too high", ("HINCRBY @queue:chat acme/queued 3",), (("count", "queue:chat"),)),
    Damage("count too low", ("HINCRBY @queue:chat /running -1",), (("count", "queue:chat"),)),
    Damage("count of nobody", ("HINCRBY @queue:chat other/scheduled 2",), (("count", "queue:chat"),)),
    Damage("counts lost", ("HDEL @queue:chat acme/queued /queued acme/running /running",), (("count", "queue:chat"),)),
    Damage("record, not listed", ("ZREM @ids:file~acme kept",), (("orphan", "rec:file acme"),)),
    Damage("listed, no record", ("ZADD @ids:file~acme 0 ghost",), (("stray", "ids:file acme"),)),
    Damage("list of no records", ("ZADD @ids:file~ghost 0 ghost",), (("stray", "ids:file ghost"),)),
    Damage("record that would never go", ("DEL @past",), (("stray", "ids:file "),)),
    Damage("record that would go too late", ("ZADD @past 1e15 file~~ends",), (("stray", "ids:file "),)),
    Damage("record that would go, kept for ever", ("ZADD @past 1 file~acme~kept",), (("stray", "ids:file acme"),)),
    Damage("no record that would go", ("ZADD @past 1 file~acme~ghost",), (("stray", "past"),)),
    Damage("what names no record", ("ZADD @past 1 ghost",), (("stray", "past"),)),
    Damage("account without an end", ("DEL @usages",), (("orphan", f"usage:{DAY} acme"),)),
    Damage("bucket without an end", ("PERSIST @bucket:acme/calls",), (("orphan", "bucket:acme/calls"),)),
    Damage("parked, not under its limit", ("ZREM @parked:gpt <waits>",), (("missing", "job:waits"),)),
    Damage("parked, in line", ("ZADD @ready:tight 1 <waits>",), (("stray", "ready:tight"),)),
    Damage("parked under another limit", ("ZADD @parked:calls 1 <waits>",), (("stray", "parked:calls"),)),
    Damage("parked, running", ("ZADD @parked:gpt 1 <running>",), (("stray", "parked:gpt"),)),
    Damage("parked, no such job", ("ZADD @parked:gpt 1 00000000000ffghost",), (("stray", "parked:gpt"),)),
    Damage(
        "limit that nothing wakes", ("HSET @limits gpt 0~-~0~0~-",), (("orphan", "parked:gpt"), ("count", "limits"))
    ),
    Damage("limit that is not known", ("HDEL @limits gpt",), (("orphan", "parked:gpt"), ("count", "limits"))),
    Damage("too many run under a limit", ("HSET @limits gpt 7~-~0~0~-",), (("count", "limits"),)),
    Damage("nobody runs under a limit", ("HSET @limits other 2~-~0~0~-",), (("count", "limits"),)),
    Damage("limit that cannot be read", ("HSET @limits gpt dancing",), (("stray", "limits"),)),
    Damage("limit without an end", ("DEL @idle",), (("stray", "limits"),)),
    Damage("limit that would go, in use", ("ZADD @idle 1 gpt",), (("stray", "idle"),)),
    Damage("no limit that would go", ("ZADD @idle 1 ghost",), (("stray", "idle"),)),
    Damage("call for nobody", ("ZADD @calls 1 ghost",), (("stray", "calls"),)),
    Damage("parked, miscounted", ("HINCRBY @queue:tight /parked 2",), (("count", "queue:tight"),)),
    Damage("bytes miscounted", ("HINCRBY @meta kept_bytes -70",), (("count", "meta"),)),
]


@pytest.mark.parametrize("damage", REPAIRABLE, ids=lambda damage: damage.name)
async def test_damage_is_found_and_put_right(store: Store, damage: Damage) -> None:
    """It is told and left alone by a look; a repair puts it right; then nothing is wrong."""
    for command in damage.commands:
        await store.raw(command)
    found = await store.inspect()
    assert all(finding.repairable and not finding.repaired for finding in found)
    assert damage.told_by(found), found
    again = await store.inspect()
    assert {each.what for each in again} == {each.what for each in found}, "a look changed something"
    mended = await store.repair()  # what is mended first may mend another
    assert mended
    assert all(finding.repaired for finding in mended)
    assert await store.inspect() == []


async def test_a_list_gets_back_what_it_lacks(store: Store) -> None:
    """Jobs that are missing on their tenant's list come back to their places, those further in, too."""
    listed = [job.id for job in (await store.bench.engine.find(JobQuery(TENANT))).jobs]
    for job_id in ("running", "later", "queued"):
        await store.raw(f"XDEL @all:acme {await store.number(job_id)}-0")
    assert {finding.kind for finding in await store.inspect()} == {"unlisted"}
    assert len([finding for finding in await store.repair() if finding.repaired]) == 3
    assert await store.inspect() == []
    assert [job.id for job in (await store.bench.engine.find(JobQuery(TENANT))).jobs] == listed


async def test_what_was_woken_is_in_order(store: Store) -> None:
    """No woken job is left at its old time, nor without its new deadline; the mark of one that runs disturbs nobody."""
    bench = store.bench
    await bench.add("deadline", delay_ms=60_000, options=JobOptions(queue_timeout_s=60))
    for name in ("later", "retried", "deadline", "running", "streaming"):
        await bench.wake(name)
    assert await store.raw("ZCARD @due") == 0
    assert await store.raw("ZSCORE @late <deadline>") == bench.clock.now_ms() + 60_000
    assert await store.raw("HGET @job:running woken_epoch") == await store.raw("HGET @job:running epoch")
    assert await store.inspect() == []
    await store.raw("ZREM @ready:chat <later>")
    await store.raw("ZADD @due 1 <retried>")
    assert {finding.kind for finding in await store.repair()} == {"missing", "stray"}
    assert {held.job_id for held in await bench.lease(100)} >= {"later", "retried", "deadline"}


async def test_a_whole_list_comes_back(store: Store) -> None:
    """Of more jobs than a script may move, all are listed again in their order."""
    await store.bench.submit(*(store.bench.new() for _ in range(300)))
    listed = await store.raw("XRANGE @all:acme - +")
    await store.raw("DEL @all:acme")
    assert len(await store.repair()) == len(listed) == 316
    assert await store.raw("XRANGE @all:acme - +") == listed
    await store.bench.add("next")
    await store.raw(f"XDEL @all:acme {await store.number('later')}-0")
    assert [finding.repaired for finding in await store.repair()] == [False], "a gap far in a long list stays"


async def test_a_mended_job_runs(store: Store) -> None:
    """A queued job that had fallen out of line is leased after the repair, and what was lost with its session too."""
    await store.raw("DEL @ready:chat")
    await store.raw("DEL @sessions")
    await store.repair()
    bench = store.bench
    assert await bench.engine.rescue(100) == 4
    await bench.announce("s2")
    leased = {held.job_id for held in await bench.lease(100, session="s2", queues=("chat", "tight"))}
    assert leased == {"queued", "keyed", "late", "running", "streaming", "limited"}
    assert await bench.state("stopping") == State.cancelled


@pytest.mark.parametrize(
    ("command", "kind", "key"),
    [
        ("SET @somebody:else 1", "unknown", "somebody:else"),
        ("SET @due:extra 1", "unknown", "due:extra"),
        ("SET @queue:x 1", "type", "queue:x"),
        ("SET @job:wrong 1", "type", "job:wrong"),
        ("SET @held:x 1", "type", "held:x"),
        ("SET @bucket:x 1", "type", "bucket:x"),
        ("SET @rec:x 1", "type", "rec:x"),
        ("HSET @rec:file~acme kept {}", "stray", "ids:file acme"),
        ("HSET @job:blank input 1", "row", "job:blank"),
        ("HSET @job:queued state dancing", "row", "job:queued"),
        ("HDEL @job:later run_at_ms", "row", "job:later"),
        ("HSET @job:streaming seq 9", "log", "job:streaming"),
        ("DEL @log:succeeded", "log", "job:succeeded"),
        ("XADD @log:running 9999999999999-0 a 1 t 1 e []", "log", "job:running"),
    ],
)
async def test_what_cannot_be_put_right_is_told(store: Store, command: str, kind: str, key: str) -> None:
    """What a repair would have to invent, or delete unknown, is told and left as it is."""
    await store.raw(command)
    told = [each for each in await store.repair() if (each.kind, each.repaired) == (kind, False)]
    assert [(each.key.removeprefix(f"{store.partition.root}:"), each.repairable) for each in told] == [(key, False)]


async def test_no_job_is_ever_deleted(store: Store) -> None:
    """Whatever else is gone, a repair keeps every row."""
    for key in await store.raw("KEYS @*"):
        if ":job:" not in key:
            await store.raw(f"DEL {key.replace(' ', '~')}")
    await store.repair()
    assert all(job is not None for job in await all_jobs(store))
    assert {finding.kind for finding in await store.inspect()} <= {"log"}


async def test_the_walk_goes_through_stores_of_any_size() -> None:
    """More jobs than a scan or a script takes at once, in lists of more than one page."""
    bench = await Bench.start(RedisHarness())
    store = Store(bench)
    await bench.submit(*(bench.new() for _ in range(700)))
    looked: list[int] = []
    assert await inspect(store.partition, looked.append) == []
    assert looked[-1] >= 700
    assert looked == sorted(looked)
    await store.raw("DEL @ready:chat")
    assert len(await store.repair()) == 700
    assert len(await bench.lease(1000)) == 700
    await bench.stop()


async def test_a_store_at_work_shows_nothing() -> None:
    """While workers lease, stream, retry, snooze and end jobs and clients submit and cancel: no false alarm."""
    harness = RedisHarness()
    engine = RedisEngine(harness.url("busy"))
    await engine.open()
    load = Load(engine)
    tasks = [asyncio.create_task(load.submit())]
    tasks += [asyncio.create_task(load.work(f"w{n}")) for n in range(3)]
    looks = 0
    while load.ended < 600 or looks < 4:
        assert await inspect(engine.partitions[0]) == []
        looks += 1
        for task in tasks:
            if task.done():
                task.result()
    load.over = True
    await asyncio.gather(*tasks)
    assert await inspect(engine.partitions[0]) == []
    await engine.shut()


async def test_damage_is_found_and_put_right_at_work() -> None:
    """While jobs move, what is broken by hand is found, and mended without breaking what moves."""
    engine = RedisEngine(RedisHarness().url("busy-broken"))
    await engine.open()
    await engine.submit([NewJob("lost", "t1", "aside", "echo", "{}"), NewJob("other", "t1", "aside", "echo", "{}")])
    load = Load(engine)
    tasks = [asyncio.create_task(load.submit()), asyncio.create_task(load.work("w"))]
    partition = engine.partitions[0]
    link = await partition.route.link(asyncio.get_running_loop().time() + 5)
    await link.do("DEL", f"{partition.root}:ready:aside")
    await link.do("HINCRBY", f"{partition.root}:queue:busy", "/queued", 7)
    mended: set[str] = set()
    while not {"missing", "count"} <= mended:
        mended |= {finding.kind for finding in await repair(partition) if finding.repaired}
    load.over = True
    await asyncio.gather(*tasks)
    assert await inspect(partition) == []
    await engine.announce(WorkerCard("s", "s", ("aside",)))
    assert len(await engine.lease(LeaseRequest("s", "s", ("aside",), 10))) == 2
    await engine.shut()


LIMITS: tuple[tuple[Limit, ...], ...] = (
    (),
    (Limit("two", max_running=2),),
    (),
    (Limit("four", max_running=4), Limit("often", per_s=5_000, burst=20)),
)


class Load:
    """Jobs on their way, until `over`: each with events; some are run again, put off, or cancelled."""

    def __init__(self, engine: RedisEngine) -> None:
        self.engine = engine
        self.over = False
        self.ended = 0
        self._submitted = 0

    async def submit(self) -> None:
        while not self.over:
            first = self._submitted
            self._submitted += 20
            await self.engine.submit([self._job(n) for n in range(first, first + 20)])
            await self.engine.cancel("t0", [f"j{first}", f"j{first + 3}"], None)
            await self.engine.promote(100)
            while self._submitted - self.ended > 300 and not self.over:
                await self.engine.promote(100)

    def _job(self, n: int) -> NewJob:
        options = JobOptions(
            queue_timeout_s=60 if n % 5 == 0 else None,
            retention_s=0 if n % 4 == 0 else 60,
            limits=LIMITS[n % 4],
        )
        return NewJob(f"j{n}", f"t{n % 3}", "busy", "echo", "{}", Priority(n // 20 % 3), n % 7, options)

    async def work(self, name: str) -> None:
        engine = self.engine
        await engine.announce(WorkerCard(name, name, ("busy",), ttl_ms=60_000))
        while not self.over:
            held = await engine.lease(LeaseRequest(name, name, ("busy",), 8))
            told = await engine.append(
                [Append(each.lease, each.next_seq, ((OUTPUT_DELTA, '"x"'),)) for each in held if each.attempt < 3]
            )
            assert all(isinstance(answer, Appended) for answer in told)
            await engine.commit([Commit(each.lease, self._outcome(each.job_id, each.attempt)) for each in held])
            await engine.prune(100)
        await engine.close(name)

    def _outcome(self, job_id: str, attempt: int) -> Outcome:
        if int(job_id[1:]) % 6 == 0 and attempt < 3:
            return Outcome("retry", delay_ms=attempt - 1)
        self.ended += 1
        return Outcome("succeeded", output='"done"')
