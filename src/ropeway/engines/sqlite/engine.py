"""The SQLite engine: the protocol's methods, each handed to the writer's thread or asked of a reading connection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import apsw

from ropeway.domain.bucket import Allowance, Spend, draws_of
from ropeway.domain.clock import Clock, SystemClock
from ropeway.domain.errors import EngineUnavailable, JobLive, JobNotFound, JobNotRetryable, LeaseLost
from ropeway.domain.event import Cursor
from ropeway.domain.ids import RandomBytes, system_random
from ropeway.domain.job import Job, JobQuery, NewJob, Receipt
from ropeway.domain.lease import Append, Appended, Assignment, Commit, LeaseRequest, Renewal
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import LimitPolicy, LimitSignal, LimitState, check_policies
from ropeway.domain.log import EventPage, LogQuery
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.record import Put, Record, RecordConflict, RecordKey, check_puts
from ropeway.domain.usage import UsageRow
from ropeway.domain.worker import TaskCard, WorkerCard
from ropeway.engines.base import EngineInfo, JobPage, Promotion, Refusal, Renewer
from ropeway.engines.hints import Board, Listener
from ropeway.engines.sqlite import accounts, reading, recording, verbs
from ropeway.engines.sqlite.connection import SqliteOptions
from ropeway.engines.sqlite.controlling import Cancel, LimitChange, Purge, Wake
from ropeway.engines.sqlite.finding import find
from ropeway.engines.sqlite.hearing import Hearing
from ropeway.engines.sqlite.readers import Readers
from ropeway.engines.sqlite.renewer import SqliteRenewer
from ropeway.engines.sqlite.sessions import Renew
from ropeway.engines.sqlite.submitting import Again
from ropeway.engines.sqlite.upkeep import Elect
from ropeway.engines.sqlite.wake import Bell, Peers, wake_directory
from ropeway.engines.sqlite.writer import Writer

__all__ = ["SqliteEngine"]

_NEAR = 200  # jobs ahead that `position` counts in the loop's own thread; more are counted in another


class SqliteEngine:
    """Jobs in a file. Durability class `disk`: a submit, commit, cancel or retry is on the disk when it is answered.

    Several processes may have the file open, each with an engine of its own. Use an engine in the loop that opened it.
    """

    def __init__(
        self,
        path: str | Path,
        clock: Clock | None = None,
        random: RandomBytes = system_random,
        options: SqliteOptions | None = None,
    ) -> None:
        self._path = Path(path).resolve()  # the WAL, and the sockets, are beside the file itself
        self._clock = clock or SystemClock()
        self._random = random
        self._options = options or SqliteOptions()
        self._board = Board()
        self._reach_others: Callable[[], Peers] | None = None
        self._others: Peers | None = None  # for `tell`, made when first needed: the writer's own are its thread's
        self._is_open = False
        self.info = EngineInfo("sqlite", f"sqlite:{path}", "disk", apsw.sqlite_lib_version())

    async def open(self) -> None:
        """Open the file, made when missing.

        Raises EngineUnavailable: it cannot be had, is not ours, is of a newer schema, or cannot be durable where it is.
        """
        if self._is_open:
            return
        self._writer = Writer(self._path, self._clock, self._random, self._options, self._board)
        self._readers = Readers(self._path, self._options)
        try:
            await self._writer.start()
            self._readers.open()
        except BaseException:
            await self._writer.stop()
            await self._readers.close()
            raise
        self._meet_the_others()
        self._is_open = True

    def _meet_the_others(self) -> None:
        """Hear the other processes on this file, and be heard by them."""
        directory = wake_directory(self._path)
        bell = None if directory is None else Bell.hang(directory)
        if directory is not None:
            self._writer.tell(Peers(directory, None if bell is None else bell.path))
            self._reach_others = functools.partial(Peers, directory, None if bell is None else bell.path)
        self._hearing = Hearing(self._board, bell, self._readers.data_version)
        self._hearing.start()

    async def shut(self) -> None:
        if self._is_open:
            self._is_open = False
            self._hearing.stop()
            if self._others is not None:
                self._others.close()
                self._others = None
            await self._writer.stop()
            await self._readers.close()

    # -- Submission

    async def submit(self, jobs: Sequence[NewJob]) -> list[Receipt | Refusal]:
        return await self._write.do(verbs.SUBMIT, jobs)

    async def cancel(
        self,
        tenant: str,
        job_ids: Sequence[str],
        reason: str | None,
        word: str | None = None,
        for_all: bool = False,
    ) -> list[Job | JobNotFound]:
        wishes = [Cancel(tenant, job_id, reason, word, for_all) for job_id in job_ids]
        return await self._write.do(verbs.CANCEL, wishes)

    async def wake(self, tenant: str, job_ids: Sequence[str]) -> list[Job | JobNotFound]:
        return await self._write.do(verbs.WAKE, [Wake(tenant, job_id) for job_id in job_ids])

    async def retry(
        self, tenant: str, jobs: Sequence[tuple[str, str]]
    ) -> list[Receipt | JobNotFound | JobNotRetryable | Refusal]:
        return await self._write.do(verbs.RETRY, [Again(tenant, job_id, new_id) for job_id, new_id in jobs])

    async def purge(self, tenant: str, job_ids: Sequence[str]) -> list[JobNotFound | JobLive | None]:
        return await self._write.do(verbs.PURGE, [Purge(tenant, job_id) for job_id in job_ids])

    async def set_queue(self, changes: Sequence[QueueChange]) -> list[QueuePolicy]:
        return await self._write.do(verbs.SET_QUEUE, changes)

    async def set_limits(self, changes: Mapping[str, LimitPolicy | None]) -> list[LimitState]:
        check_policies(changes)
        return await self._write.do(verbs.SET_LIMITS, [LimitChange(*change) for change in changes.items()])

    # -- Execution

    async def publish(self, tasks: Sequence[TaskCard]) -> None:
        await self._write.do(verbs.PUBLISH, tasks)

    async def announce(self, worker: WorkerCard) -> None:
        await self._write.do(verbs.ANNOUNCE, [worker])

    async def lease(self, request: LeaseRequest) -> list[Assignment]:
        return (await self._write.do(verbs.LEASE, [request]))[0]

    async def signal(self, signals: Sequence[LimitSignal]) -> None:
        await self._write.do(verbs.SIGNAL, signals)

    async def renew(self, session: str, ttl_ms: int) -> Renewal:
        return (await self._write.do(verbs.RENEW, [Renew(session, ttl_ms)]))[0]

    async def append(self, batch: Sequence[Append]) -> list[Appended | LeaseLost]:
        return await self._write.do(verbs.APPEND, batch)

    async def commit(self, batch: Sequence[Commit]) -> list[State | LeaseLost]:
        return await self._write.do(verbs.COMMIT, batch)

    async def close(self, session: str) -> None:
        await self._write.do(verbs.CLOSE, [session])

    def renewer(self) -> Renewer:
        return SqliteRenewer(self._path, self._clock, self._options)

    # -- Reading

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]:
        return self._read.at_once(reading.get, tenant, job_ids)

    async def find(self, query: JobQuery) -> JobPage:
        return await self._read.in_thread(find, query)

    async def read(self, tenant: str, job_id: str, after: Cursor, limit: int) -> EventPage | None:
        return self._read.at_once(reading.read, tenant, job_id, after, limit)

    async def read_many(self, queries: Sequence[LogQuery]) -> list[EventPage | None]:
        return self._read.at_once(reading.read_many, queries)

    async def position(self, tenant: str, job_id: str, limit: int = 10_000) -> int | None:
        near = self._read.at_once(reading.position, tenant, job_id, min(limit, _NEAR))
        if near is not None or limit <= _NEAR:
            return near
        return await self._read.in_thread(reading.position, tenant, job_id, limit)

    async def stats(self, tenant: str | None = None) -> list[QueueStats]:
        return await self._read.in_thread(reading.stats, tenant)

    async def limits(self) -> list[LimitState]:
        return await self._read.in_thread(reading.limits)

    async def tasks(self) -> list[TaskCard]:
        return self._read.at_once(reading.tasks)

    async def workers(self) -> list[WorkerCard]:
        return await self._read.in_thread(reading.workers)

    async def usage(self, tenant: str, since: date, until: date) -> list[UsageRow]:
        return await self._read.in_thread(accounts.usage, tenant, since, until)

    def listen(self, *topics: str) -> Listener:
        return self._board.listen(*topics)

    async def tell(self, *topics: str) -> None:
        self._board.fire(topics)
        if self._is_open and self._reach_others is not None:
            if self._others is None:
                self._others = self._reach_others()
            self._others.tell(topics)

    # -- Upkeep

    async def promote(self, limit: int) -> Promotion:
        return (await self._write.do(verbs.PROMOTE, [limit]))[0]

    async def rescue(self, limit: int) -> int:
        return (await self._write.do(verbs.RESCUE, [limit]))[0]

    async def prune(self, limit: int) -> int:
        return (await self._write.do(verbs.PRUNE, [limit]))[0]

    async def elect(self, duty: str, holder: str, ttl_ms: int) -> bool:
        return (await self._write.do(verbs.ELECT, [Elect(duty, holder, ttl_ms)]))[0]

    # -- Records

    async def put(self, puts: Sequence[Put]) -> list[Record | RecordConflict]:
        check_puts(puts)
        return await self._write.do(verbs.PUT, puts)

    async def fetch(self, keys: Sequence[RecordKey]) -> list[Record | None]:
        return self._read.at_once(recording.fetch, keys, self._clock.now_ms())

    async def scan(self, kind: str, tenant: str, after: str = "", limit: int = 100) -> list[Record]:
        return self._read.at_once(recording.scan, kind, tenant, after, limit, self._clock.now_ms())

    async def drop(self, keys: Sequence[RecordKey]) -> list[bool]:
        return await self._write.do(verbs.DROP, keys)

    async def spend(self, wishes: Sequence[Spend]) -> list[Allowance]:
        draws_of(wishes)  # what is wrong in it is this caller's alone
        return (await self._write.do(verbs.SPEND, [wishes]))[0]

    @property
    def _write(self) -> Writer:
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        return self._writer

    @property
    def _read(self) -> Readers:
        if not self._is_open:
            raise EngineUnavailable("the engine is not open")
        return self._readers
