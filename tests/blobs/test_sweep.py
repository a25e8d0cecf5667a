"""The sweep: what goes, what stays, and that a crash anywhere leaves nothing behind that it does not find."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blobs_support import gathered, pieces

from ropeway.blobs import About, Blob, BlobStat, BlobStore, FileLimits, Files
from ropeway.blobs.files import BLOB, USE, USE_ID, Usage
from ropeway.blobs.folder import FolderStore
from ropeway.blobs.sweep import ORPHAN_GRACE_MS, REFERENCE_GRACE_MS, Sweep
from ropeway.domain.file import FileNotFound, FileRecord, FilesNotKept, QuotaExhausted
from ropeway.domain.job import NewJob
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.testing import ManualClock, seeded_random

TENANT = "acme"


class Crashed(Exception):
    """The process died here."""


class Crashes:
    """Dies at the n-th call from now, before or after it has had its effect."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.after = False
        self.calls = 0

    def arm(self, at: int | None, after: bool = False) -> None:
        self.at, self.after, self.calls = at, after, 0

    def before_call(self) -> None:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise Crashed

    def after_call(self) -> None:
        if self.calls == self.at and self.after:
            raise Crashed


class FrailLedger:
    """An engine's records, as a process that may die uses them."""

    def __init__(self, engine: Engine, crashes: Crashes) -> None:
        self._engine = engine
        self._crashes = crashes

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        self._crashes.before_call()
        answers = await self._engine.put(puts)
        self._crashes.after_call()
        return answers

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        return await self._engine.fetch(keys)

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        return await self._engine.scan(kind, tenant, after, limit)

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        self._crashes.before_call()
        answers = await self._engine.drop(keys)
        self._crashes.after_call()
        return answers


class FrailStore:
    """A folder of blobs, as a process that may die uses it."""

    def __init__(self, store: BlobStore, crashes: Crashes) -> None:
        self._store = store
        self._crashes = crashes
        self.url = store.url

    async def write(self, chunks: AsyncIterable[bytes]) -> Blob:
        self._crashes.before_call()
        blob = await self._store.write(chunks)
        self._crashes.after_call()
        return blob

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        return self._store.read(key, start, end)

    async def delete(self, key: str) -> None:
        self._crashes.before_call()
        await self._store.delete(key)
        self._crashes.after_call()

    def scan(self) -> AsyncIterator[BlobStat]:
        return self._store.scan()

    async def tidy(self, before_ms: int) -> int:
        return await self._store.tidy(before_ms)

    async def claim(self, owner: str) -> str:
        return await self._store.claim(owner)


class Room:
    """An engine, a store and their sweep; time stands still unless the test moves it."""

    def __init__(self, engine: Engine, store: BlobStore, clock: ManualClock) -> None:
        self.engine = engine
        self.store = store
        self.clock = clock
        self.crashes = Crashes()
        self.random = seeded_random("files")
        self.files = self.another_process()

    def another_process(self) -> Files:
        """Files as a process of its own has them, which may die."""
        ledger, store = FrailLedger(self.engine, self.crashes), FrailStore(self.store, self.crashes)
        return Files(ledger, store, clock=self.clock, random=self.random)

    async def upload(self, content: bytes, about: About | None = None) -> FileRecord:
        return await self.files.create(TENANT, pieces(content), about or About())

    async def sweep(self) -> int:
        """Two whole rounds, as a process does them that has just come up; how much was let go."""
        self.crashes.arm(None)
        sweep = Sweep(self.another_process(), self.engine)
        gone = rounds = 0
        while rounds < 2:
            swept, over = await sweep.step()
            gone += sum(swept)
            rounds += over
        return gone

    async def submit(self, job_id: str, input_json: str = "{}") -> None:
        await self.engine.submit([NewJob(job_id, TENANT, "default", "task", input_json)])

    async def end(self, job_id: str, *, forget: bool = False) -> None:
        await self.engine.cancel(TENANT, [job_id], None)
        if forget:
            await self.engine.purge(TENANT, [job_id])

    async def blobs(self) -> set[str]:
        return {found.key async for found in self.store.scan()}

    async def is_sound(self) -> None:
        """Every blob has a reference and a file, and the other way round; the books are right."""
        references = {record.key.id for record in await self.engine.scan(BLOB, "", limit=1000)}
        records = [
            msgspec.json.decode(record.body, type=FileRecord)
            for kind in ("file", "jobfile")
            for record in await self.engine.scan(kind, TENANT, limit=1000)
        ]
        assert await self.blobs() == references == {file.blob for file in records}
        uploads = [file for file in records if file.job is None]
        assert await self.files.usage(TENANT) == Usage(sum(file.size for file in uploads), len(uploads))


@pytest.fixture(params=["memory", "sqlite"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    clock = ManualClock()
    if request.param == "memory":
        from ropeway.engines.memory import MemoryEngine

        engine: Engine = MemoryEngine(clock, seeded_random("engine"))
    else:
        engine = connect(f"sqlite:///{tmp_path}/jobs.db", clock=clock, random=seeded_random("engine"))
    await engine.open()
    yield Room(engine, FolderStore(tmp_path / "blobs", clock=clock), clock)
    await engine.shut()


# -- what goes and what stays


async def test_an_expired_file_goes(room: Room) -> None:
    """It is not there from the instant on, and the sweep takes its bytes; others stay."""
    going = await room.upload(b"going", About(ttl_s=60))
    staying = await room.upload(b"staying")
    assert await room.sweep() == 0
    room.clock.advance(s=60)
    with pytest.raises(FileNotFound):
        await room.files.get(TENANT, going.id)
    assert (await room.files.list(TENANT)).files == (staying,)
    assert await room.sweep() == 1
    assert await room.blobs() == {staying.blob}
    await room.is_sound()


async def test_files_of_a_job_go_with_it(room: Room) -> None:
    """Not when it ends, but when it is forgotten."""
    await room.submit("job_1")
    made = await room.upload(b"made", About(job="job_1"))
    room.clock.advance(s=100_000)
    await room.end("job_1")
    assert await room.sweep() == 0
    assert await gathered(room.files.read(made)) == b"made"
    await room.end("job_1", forget=True)
    assert await room.sweep() == 1
    await room.is_sound()
    assert await room.blobs() == set()


@pytest.mark.parametrize("owner", [None, "job_0"])
async def test_a_file_stays_while_a_live_job_has_it(room: Room, owner: str | None) -> None:
    """Expired, or of a job that is gone: who was given it before still finds it, until the end of its job."""
    await room.submit("job_0")
    about = About(ttl_s=60) if owner is None else About(job=owner)
    file = await room.upload(b"needed", about)
    await room.files.hold(TENANT, "job_1", [file.id])
    await room.submit("job_1")
    await room.end("job_0", forget=True)
    room.clock.advance(s=3600)
    assert await room.sweep() == 0
    (held,) = await room.files.get_all(TENANT, [file.id], held=True)
    assert await gathered(room.files.read(held)) == b"needed"
    await room.end("job_1")
    assert await room.sweep() == 1
    assert await room.engine.scan("filehold", TENANT) == []
    await room.is_sound()


async def test_a_file_stays_while_its_job_is_being_submitted(room: Room) -> None:
    """A hold comes before the submit; one whose submit never came lets go after a while."""
    file = await room.upload(b"needed", About(ttl_s=60))
    room.clock.advance(s=59)
    await room.files.hold(TENANT, "job_1", [file.id])
    room.clock.advance(s=60)
    assert await room.sweep() == 0
    room.clock.advance(s=600)
    assert await room.sweep() == 1
    await room.is_sound()


async def test_an_upload_of_bytes_that_are_being_swept(room: Room) -> None:
    """The same content comes again while its old file goes: the new one is whole, at every step of the sweep."""
    for at in range(1, 6):
        await room.upload(b"the same bytes", About(ttl_s=1))
        room.clock.advance(s=2)
        room.crashes.arm(at)
        sweep = Sweep(room.another_process(), room.engine)
        stopped = False
        try:
            await sweep.step()
        except Crashed:
            stopped = True  # it stands still here, in the middle
        room.crashes.arm(None)
        fresh = await room.upload(b"the same bytes")
        if stopped:
            await sweep.step()  # and goes on
        room.clock.advance(REFERENCE_GRACE_MS)
        await room.sweep()
        assert await gathered(room.files.read(fresh)) == b"the same bytes"
        await room.is_sound()
        await room.files.delete(TENANT, fresh.id)


async def test_many_files_go_page_by_page(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round is as many steps as it has pages, and misses none."""
    monkeypatch.setattr("ropeway.blobs.sweep.PAGE", 3)
    for n in range(10):
        await room.upload(b"%d" % n, About(ttl_s=60 if n % 2 else None))
    room.clock.advance(s=60)
    assert await room.sweep() == 5
    await room.is_sound()


# -- crashes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("job", [None, "job_1"])
async def test_a_crash_anywhere_in_an_upload(room: Room, job: str | None, after: bool) -> None:
    """Either the file is there, whole, or nothing of it is left once the sweep was there."""
    await room.submit("job_1")
    kept = await room.upload(b"kept")
    for at in range(1, 10):
        room.crashes.arm(at, after)
        try:
            file = await room.upload(b"half", About(job=job))
        except Crashed:
            room.clock.advance(ORPHAN_GRACE_MS + 1)
            await room.sweep()
            await room.is_sound()
            assert await gathered(room.files.read(kept)) == b"kept"
            for half in (await room.files.list(TENANT)).files:
                if half != kept:
                    assert await gathered(room.files.read(half)) == b"half"
        else:
            assert at > 3
            assert await gathered(room.files.read(file)) == b"half"
            break
    else:
        pytest.fail("there are more steps than were tried")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("how", ["delete", "sweep"])
async def test_a_crash_anywhere_in_a_removal(room: Room, how: str, after: bool) -> None:
    """The sweep finishes what was begun, and whatever it left itself."""
    kept = await room.upload(b"kept")
    for at in range(1, 10):
        file = await room.upload(b"going", About(ttl_s=60))
        if how == "sweep":
            room.clock.advance(s=61)
        room.crashes.arm(at, after)
        try:
            if how == "delete":
                await room.files.delete(TENANT, file.id)
            else:
                await Sweep(room.another_process(), room.engine).step()
        except Crashed:
            room.clock.advance(ORPHAN_GRACE_MS + 1)
            await room.sweep()
            await room.is_sound()
            assert await room.blobs() == {kept.blob}
        else:
            assert at > 3
            break
    else:
        pytest.fail("there are more steps than were tried")


async def test_what_is_young_is_left_alone(room: Room) -> None:
    """A blob without a reference, or a reference without a file, may be an upload that is under way."""
    blob = await room.files.write(TENANT, pieces(b"under way"))
    room.clock.advance(ORPHAN_GRACE_MS - 1)
    assert await room.sweep() == 0
    room.crashes.arm(3)
    with pytest.raises(Crashed):
        await room.files.enter(TENANT, blob)
    room.clock.advance(REFERENCE_GRACE_MS - 1)
    assert await room.sweep() == 0
    room.clock.advance(1)
    assert await room.sweep() == 1
    await room.is_sound()


async def test_books_that_are_wrong_are_mended(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    """By what two rounds found; a single one may have met an upload under way."""
    await room.upload(b"12345")
    await room.engine.put([Put(RecordKey(USE, TENANT, USE_ID), '{"size":99,"files":9}')])
    sweep = Sweep(room.files, room.engine)
    await sweep.step()
    assert await room.files.usage(TENANT) == Usage(99, 9)
    with caplog.at_level(logging.WARNING):
        await sweep.step()
    assert await room.files.usage(TENANT) == Usage(5, 1)
    assert "wrong by 94 bytes" in caplog.text


# -- whose store it is


async def test_two_engines_do_not_share_a_store(room: Room) -> None:
    """The second one is refused, since each would delete the other's blobs as nobody's."""
    from ropeway.engines.memory import MemoryEngine

    ours = await room.upload(b"ours")
    other = MemoryEngine(room.clock)
    await other.open()
    theirs = Files(other, room.store, clock=room.clock)
    with pytest.raises(FilesNotKept, match="belongs to another engine"):
        await theirs.create(TENANT, pieces(b"theirs"))
    room.clock.advance(ORPHAN_GRACE_MS * 2)
    swept, _ = await Sweep(theirs, other).step()
    assert sum(swept) == 0
    assert await room.blobs() == {ours.blob}
    await other.shut()


# -- quotas


async def test_a_quota_holds_against_uploads_at_the_same_time(room: Room) -> None:
    """What fits is kept, the others are refused and leave nothing; the room of job files is the job's."""
    await room.submit("job_1")
    limits = FileLimits(quota_bytes=25)
    answers: list[Any] = await asyncio.gather(
        *[room.files.create(TENANT, pieces(b"x" * 10), limits=limits) for _ in range(5)], return_exceptions=True
    )
    assert sum(isinstance(answer, FileRecord) for answer in answers) == 2
    assert sum(isinstance(answer, QuotaExhausted) for answer in answers) == 3
    await room.upload(b"made", About(job="job_1"))
    assert len(await room.blobs()) == 3
    await room.is_sound()
