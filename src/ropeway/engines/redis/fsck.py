"""Looks for what is wrong in a live partition, and puts right what can be.

A job's row is the truth; indexes and counts follow from it. Everything is looked at in scripts of at most 64 jobs, each
of which sees all that it compares in one moment: a job that moves meanwhile is no false alarm. Counts cannot be told in
one moment. What a count is wrong by, however, stays the same however the jobs move, so it is taken from a walk in which
that queue's counts did not change, twice; the counts of a queue that never rests are compared with its line alone. How
many jobs of a limit run stays the same where it is full, whoever they are: that is told where all queues rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from ropeway.domain.finding import Finding
from ropeway.domain.lifecycle import TERMINAL
from ropeway.engines.redis.lane import chunks
from ropeway.engines.redis.partition import Partition

__all__ = ["Progress", "Walk", "inspect", "repair"]

Progress = Callable[[int], None]
"""Called with how many keys have been looked at so far."""

BATCH = 64  # jobs looked at in one script: 1 ms of the server's time
SCAN_COUNT = 500

_SINGLE = {
    "meta": "hash",
    "due": "zset",
    "late": "zset",
    "ended": "zset",
    "claims": "zset",
    "sessions": "zset",
    "queues": "set",
    "tasks": "hash",
    "past": "zset",
    "usages": "zset",
    "limits": "hash",
    "calls": "zset",
    "idle": "zset",
}
_NAMED = {
    "job": "hash",
    "log": "stream",
    "ready": "zset",
    "parked": "zset",
    "wake": "zset",
    "failed": "zset",
    "all": "stream",
    "queue": "hash",
    "claim": "hash",
    "session": "hash",
    "held": "set",
    "asked": "set",
    "duty": "hash",
    "rec": "hash",
    "ids": "zset",
    "bucket": "hash",
    "usage": "hash",
}
_INDEXES = frozenset(
    {"due", "late", "ended", "claims", "sessions", "queues", "ready", "failed", "all", "held", "asked"}
    | {"ids", "past", "parked", "limits", "calls", "idle"}
)
_OWNED = frozenset({"log", "claim", "session", "queue", "ready", "parked", "wake", "rec", "bucket", "usage"})
_OF_RECORDS = frozenset({"ids", "past"})
_SCANS = {"zset": "ZSCAN", "set": "SSCAN", "hash": "HSCAN"}
_KINDS = {"sessions": "session", "queues": "queue"}  # of what is found in an index; `stray` elsewhere

Tally = dict[tuple[str, str], int]
"""By queue and count (`<tenant>/<state>`); the bytes that ended jobs come to stand under the queue ''.

How many jobs of a limit run stands under its key, behind a space: no queue has one.
"""

KEPT = ("", "kept_bytes")
RUNNING = "running"


async def inspect(partition: Partition, progress: Progress | None = None) -> list[Finding]:
    """What is wrong in a partition, told and left as it is. Raises EngineUnavailable when its server is lost."""
    walk = await Walk(partition, progress).run()
    return walk.findings + await _check_counts(partition, walk, mend=False)


async def repair(partition: Partition, progress: Progress | None = None) -> list[Finding]:
    """What was wrong in a partition, put right where `repaired` says so. No job is ever deleted.

    Jobs go back where their rows say; what runs under a session that is gone is left to the next rescue.
    """
    first = await Walk(partition, progress, mend=True).run()
    second = await Walk(partition, progress, mend=True).run()  # counts follow from rows that are in order
    new = [finding for finding in second.findings if finding.repaired]
    return first.findings + new + await _check_counts(partition, second, mend=True)


class Walk:
    """One way through all keys of a partition."""

    def __init__(self, partition: Partition, progress: Progress | None = None, *, mend: bool = False) -> None:
        self.findings: list[Finding] = []
        self.before: Tally = {}
        self.found: Counter[tuple[str, str]] = Counter()
        self.after: Tally = {}
        self._partition = partition
        self._progress = progress
        self._mend = mend
        self._unlisted: dict[str, int] = {}
        self._looked = 0
        self._seen: set[str] = set()

    async def run(self) -> Walk:
        """Look at everything once."""
        self.before = await _counts(self._partition)
        async for keys in self._keys():
            await self._look(keys)
            self._looked += len(keys)
            if self._progress is not None:
                self._progress(self._looked)
        if self._mend:
            await self._list()
        self.after = await _counts(self._partition)
        return self

    async def _keys(self) -> AsyncIterator[list[str]]:
        """What follows the root in every key, some at a time."""
        start = f"{self._partition.root}:"
        cursor = "0"
        while True:
            cursor, keys = await self._partition.ask("SCAN", cursor, "MATCH", f"{start}*", "COUNT", SCAN_COUNT)
            yield [key[len(start) :] for key in keys]
            if cursor == "0":
                return

    async def _look(self, keys: Sequence[str]) -> None:
        jobs: list[str] = []
        owned: list[tuple[str, str]] = []
        for key in keys:
            kind, _, name = key.partition(":")
            wanted = _NAMED.get(kind) if name else _SINGLE.get(key)
            if wanted is None:
                self._tell("unknown", key, "no such key is known: another version's, or somebody else's", -1)
            elif kind == "job":
                jobs.append(name)
            elif kind in _OWNED:
                owned.append((kind, name))
            if wanted is not None and (kind in _INDEXES or kind not in _OWNED | {"job"}):
                await self._look_at_key(kind, name, wanted)
        for part in chunks(jobs, BATCH):
            await self._look_at_jobs(part)
        for pairs in chunks(owned, BATCH):
            await self._look_at_owned(pairs)

    async def _look_at_jobs(self, ids: Sequence[str]) -> None:
        reply = await self._partition.call("fsck_jobs", int(self._mend), *ids)
        for job_id, (state, queue, tenant, size, number, parked, limits, *faults) in zip(
            ids, reply.values, strict=True
        ):
            for n in range(0, len(faults), 3):
                if faults[n] == "unlisted" and self._mend:
                    self._unlisted[job_id] = int(number)
                else:
                    self._tell(faults[n], f"job:{job_id}", faults[n + 1], faults[n + 2])
            if (state in TERMINAL and not size) or job_id in self._seen:
                continue  # a scan may come by twice
            self._seen.add(job_id)
            if state in TERMINAL:
                self.found[KEPT] += size
            elif state:
                self.found[queue, f"{tenant}/{state}"] += 1
                self.found[queue, f"/{state}"] += 1
                self._count_limits(queue, tenant, parked, limits)

    def _count_limits(self, queue: str, tenant: str, parked: str, limits: str) -> None:
        """A live job that is parked, or that runs under limits."""
        if parked:
            self.found[queue, f"{tenant}/parked"] += 1
            self.found[queue, "/parked"] += 1
        for key in limits.split(" ")[::5] if limits else ():
            self.found[f" {key}", RUNNING] += 1

    async def _list(self) -> None:
        """Put jobs back on their tenants' lists, which must be done from the oldest on."""
        for ids in chunks(sorted(self._unlisted, key=self._unlisted.__getitem__), BATCH):
            reply = await self._partition.call("fsck_jobs", 2, *ids)
            for job_id, (*_, kind, what, outcome) in zip(ids, reply.values, strict=True):
                if kind == "unlisted":
                    self._tell(kind, f"job:{job_id}", what, outcome)

    async def _look_at_owned(self, pairs: Sequence[tuple[str, str]]) -> None:
        flat = [text for pair in pairs for text in pair]
        reply = await self._partition.call("fsck_keys", int(self._mend), *flat)
        for (kind, name), fault in zip(pairs, reply.values, strict=True):
            if fault:
                self._tell("type" if fault[1] == -1 else "orphan", f"{kind}:{name}", *fault)

    async def _look_at_key(self, kind: str, name: str, wanted: str) -> None:
        """A key of which there are few: its type, and what it holds."""
        key = f"{kind}:{name}" if name else kind
        told = await self._partition.ask("TYPE", f"{self._partition.root}:{key}")
        if told not in (wanted, "none") and kind not in _OWNED:
            self._tell("type", key, f"it is a {told} and should be a {wanted}", -1)
        if told == wanted and kind in _INDEXES:
            script = "fsck_records" if kind in _OF_RECORDS else "fsck_index"
            async for members in self._members(key, wanted):
                for part in chunks(members, BATCH):
                    reply = await self._partition.call(script, int(self._mend), kind, name, *part)
                    for fault in filter(None, reply.values):
                        self._tell(_KINDS.get(kind, "stray"), key, *fault)

    async def _members(self, key: str, kind: str) -> AsyncIterator[list[str]]:
        """What an index holds, some at a time; of a list each entry's id and its job's, a space between."""
        full = f"{self._partition.root}:{key}"
        cursor = "-" if kind == "stream" else "0"
        while True:
            if kind == "stream":
                entries = await self._partition.ask("XRANGE", full, cursor, "+", "COUNT", BATCH)
                yield [f"{entry} {fields[1]}" for entry, fields in entries]
                if len(entries) < BATCH:
                    return
                cursor = f"({entries[-1][0]}"
                continue
            cursor, found = await self._partition.ask(_SCANS[kind], full, cursor, "COUNT", BATCH)
            yield found if kind == "set" else found[::2]
            if cursor == "0":
                return

    def _tell(self, kind: str, key: str, what: str, outcome: int) -> None:
        full = f"{self._partition.root}:{key}"
        self.findings.append(Finding(kind, full, what, repairable=outcome >= 0, repaired=outcome == 1))


async def _check_counts(partition: Partition, walk: Walk, *, mend: bool) -> list[Finding]:
    """The counts that are wrong by as much in this walk and in another."""
    drifts, restless = _drifts(walk)
    if drifts:
        again, _ = _drifts(await Walk(partition).run())
        drifts = {place: by for place, by in drifts.items() if again.get(place) == by}
    findings = [_wrong(partition, place, by, mend) for place, by in sorted(drifts.items())]
    if mend:
        for (queue, field), by in sorted(drifts.items()):
            await partition.call("fsck_counts", queue, field, -by, repeat=False)
    if not walk.findings:
        findings += [finding for queue in restless if (finding := await _beside_line(partition, queue, mend))]
    return findings


def _drifts(walk: Walk) -> tuple[Tally, list[str]]:
    """What each count is wrong by, where a queue's counts did not change meanwhile; and the queues where they did."""
    moved = {place[0] for place in walk.before.keys() | walk.after.keys() if _differs(walk, place)}
    live = {place for place in walk.after if not place[1].endswith(tuple(TERMINAL))} | walk.found.keys()
    if moved:
        live = {place for place in live if not place[0].startswith(" ")}
    wrong = {place: walk.after.get(place, 0) - walk.found[place] for place in live if place[0] not in moved}
    queues = {name for name in moved if name and not name.startswith(" ")}
    return {place: by for place, by in wrong.items() if by}, sorted(queues)


def _differs(walk: Walk, place: tuple[str, str]) -> bool:
    return walk.before.get(place, 0) != walk.after.get(place, 0)


async def _beside_line(partition: Partition, queue: str, mend: bool) -> Finding | None:
    queued, in_line = (await partition.call("fsck_counts", queue)).values
    if queued == in_line:
        return None
    if mend:
        await partition.call("fsck_counts", queue, "/queued", in_line - queued, repeat=False)
    return _wrong(partition, (queue, "/queued"), queued - in_line, mend)


def _wrong(partition: Partition, place: tuple[str, str], by: int, mend: bool) -> Finding:
    queue, field = place
    key = f"{partition.root}:queue:{queue}" if queue else f"{partition.root}:meta"
    if queue.startswith(" "):
        key, field = f"{partition.root}:limits", f"how many run under{queue}"
    return Finding("count", key, f"{field} is {abs(by):,} too {'high' if by > 0 else 'low'}", True, mend)


async def _counts(partition: Partition) -> Tally:
    """All counts that are kept."""
    kept = await partition.ask("HGET", f"{partition.root}:meta", KEPT[1])
    counts: Tally = {KEPT: int(kept or 0)}
    async for key, row in _hash(partition, f"{partition.root}:limits"):
        if (running := row.partition(" ")[0]).isdigit():
            counts[f" {key}", RUNNING] = int(running)
    for queue in await partition.ask("SMEMBERS", f"{partition.root}:queues"):
        async for field, n in _hash(partition, f"{partition.root}:queue:{queue}"):
            if "/" in field:
                counts[queue, field] = int(n)
    return counts


async def _hash(partition: Partition, key: str) -> AsyncIterator[tuple[str, str]]:
    """A hash's fields with their values."""
    cursor = "0"
    while True:
        cursor, found = await partition.ask("HSCAN", key, cursor, "COUNT", SCAN_COUNT)
        for pair in zip(found[::2], found[1::2], strict=True):
            yield pair
        if cursor == "0":
            return
