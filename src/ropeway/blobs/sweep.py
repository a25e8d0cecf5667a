"""The sweep: files of jobs that are gone, files that have expired, and what was left by whoever died half-way.

Two passes. Over the references, a page at each step, round and round: it finds the files that should go, references
without a file, and counts what each tenant's uploads take. And over the store, now and then: blobs that no reference
names. Each removal is one that may be repeated; a sweep that is cut short anywhere is done by the next.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from ropeway.blobs.files import BLOB, FILE, HOLD, JOB_FILE, USE, USE_ID, Files, Reference, Usage, record_id
from ropeway.blobs.ledger import has_store
from ropeway.domain.file import FileRecord
from ropeway.domain.job import Job
from ropeway.domain.record import Put, Record, RecordKey

__all__ = ["ORPHAN_GRACE_MS", "REFERENCE_GRACE_MS", "Jobs", "Sweep", "Swept"]

PAGE = 500
REFERENCE_GRACE_MS = 3_600_000  # between a reference and its record lies one call; an hour is no race
ORPHAN_GRACE_MS = 86_400_000  # an object store dates a blob from the beginning of its upload, which may take long
HOLD_GRACE_MS = 600_000  # between a hold and the submit that it is for
ORPHANS_EVERY_S = 3_600.0

_log = logging.getLogger("ropeway.files")


class Jobs(Protocol):
    """What is used of an engine besides its records."""

    async def get(self, tenant: str, job_ids: Sequence[str]) -> list[Job | None]: ...


class Swept(NamedTuple):
    """What a step let go: files past their time, files of jobs that are gone, and what had no file at all."""

    expired: int = 0
    jobless: int = 0
    orphans: int = 0


class _Found(NamedTuple):
    """A reference, and the file that it should be of."""

    record: Record
    reference: Reference
    file: FileRecord | None


class Sweep:
    """One process at a time should run it; two do no harm."""

    def __init__(self, files: Files, jobs: Jobs) -> None:
        self._files = files
        self._jobs = jobs
        self._place = ""
        self._uses: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # of this round: bytes and uploads by tenant
        self._drifts: dict[str, Usage] = {}  # of the last round: what the books said too much
        self._orphans_at_s = float("-inf")

    async def step(self) -> tuple[Swept, bool]:
        """One page. What was let go, and whether the round is over."""
        page = await self._files.ledger.scan(BLOB, "", self._place, PAGE)
        swept = await self._sweep(await self._found(page))
        self._place = page[-1].key.id if len(page) == PAGE else ""
        if self._place:
            return swept, False
        await self._balance()
        now_s = self._files.clock.monotonic_s()
        if now_s >= self._orphans_at_s:
            self._orphans_at_s = now_s + ORPHANS_EVERY_S
            swept = swept._replace(orphans=swept.orphans + await self._sweep_store())
        if any(swept):
            _log.info("swept %d expired files, %d of jobs that are gone, %d orphans", *swept)
        return swept, True

    # -- over the references

    async def _found(self, page: Sequence[Record]) -> list[_Found]:
        references = [msgspec.json.decode(record.body, type=Reference) for record in page]
        keys = [RecordKey(FILE if ref.job is None else JOB_FILE, ref.tenant, record_id(ref.file)) for ref in references]
        records = await self._files.ledger.fetch(keys) if keys else []
        files = [None if record is None else msgspec.json.decode(record.body, type=FileRecord) for record in records]
        return [_Found(*found) for found in zip(page, references, files, strict=True)]

    async def _sweep(self, page: Sequence[_Found]) -> Swept:
        now_ms = self._files.clock.now_ms()
        gone = await self._jobs_gone(page)
        expired = jobless = orphans = 0
        for record, reference, file in page:
            use = self._uses[reference.tenant]
            if file is None or file.blob != record.key.id:
                if record.created_at_ms + REFERENCE_GRACE_MS <= now_ms:
                    await self._files.forget(record.key.id)
                    orphans += 1
            elif file.expired(now_ms) and not await self._is_held(reference):
                await self._files.remove(reference.tenant, file)
                expired += 1
            elif reference.job in gone and not await self._is_held(reference):
                await self._files.remove(reference.tenant, file)
                jobless += 1
            elif file.job is None:
                use[0] += file.size
                use[1] += 1
        return Swept(expired, jobless, orphans)

    async def _jobs_gone(self, page: Sequence[_Found]) -> set[str]:
        """The jobs of these files that are there no more."""
        owners: dict[str, set[str]] = defaultdict(set)
        for _, reference, _ in page:
            if reference.job is not None:
                owners[reference.tenant].add(reference.job)
        gone: set[str] = set()
        for tenant, named in owners.items():
            ids = list(named)
            gone |= {id_ for id_, job in zip(ids, await self._jobs.get(tenant, ids), strict=True) if job is None}
        return gone

    async def _is_held(self, reference: Reference) -> bool:
        """Whether a job that was given the file may still need it. Holds of jobs that do not are let go."""
        start = f"{reference.file}:"
        while True:
            page = await self._files.ledger.scan(HOLD, reference.tenant, start, PAGE)
            holds = [record for record in page if record.key.id.startswith(f"{reference.file}:")]
            if not holds:
                return False
            ids = [record.key.id.partition(":")[2] for record in holds]
            jobs = await self._jobs.get(reference.tenant, ids)
            if any(self._needs(hold, job) for hold, job in zip(holds, jobs, strict=True)):
                return True
            await self._files.ledger.drop([record.key for record in holds])

    def _needs(self, hold: Record, job: Job | None) -> bool:
        if job is None:  # not submitted yet, or never
            return hold.created_at_ms + HOLD_GRACE_MS > self._files.clock.now_ms()
        return not job.state.terminal

    # -- what uploads take

    async def _balance(self) -> None:
        """Mend the books of tenants that were wrong by the same amount in two rounds: no upload was under way then."""
        drifts: dict[str, Usage] = {}
        tenants = self._uses.keys() | self._drifts.keys()
        for tenant in tenants:
            size, files = self._uses.get(tenant, (0, 0))
            booked = await self._files.usage(tenant)
            drift = Usage(booked.size - size, booked.files - files)
            if drift != Usage() and drift == self._drifts.get(tenant):
                _log.warning("tenant %s: the books of files were wrong by %d bytes", tenant, drift.size)
                body = msgspec.json.encode(Usage(size, files)).decode()
                await self._files.ledger.put([Put(RecordKey(USE, tenant, USE_ID), body)])
            elif drift != Usage():
                drifts[tenant] = drift
        self._drifts = drifts
        self._uses.clear()

    # -- over the store

    async def _sweep_store(self) -> int:
        """Let blobs go that no reference names, if the store is this engine's own."""
        if not await has_store(self._files.ledger):
            return 0
        if not await self._files.owns_store():
            _log.warning("%s belongs to another engine: what nobody names stays in it", self._files.store.url)
            return 0
        before_ms = self._files.clock.now_ms() - ORPHAN_GRACE_MS
        gone = await self._files.store.tidy(before_ms)
        waiting: list[str] = []
        async for found in self._files.store.scan():
            if found.written_at_ms < before_ms:
                waiting.append(found.key)
            if len(waiting) == PAGE:
                gone += await self._forget_unnamed(waiting)
                waiting = []
        return gone + await self._forget_unnamed(waiting)

    async def _forget_unnamed(self, keys: Sequence[str]) -> int:
        named = await self._files.ledger.fetch([RecordKey(BLOB, "", key) for key in keys]) if keys else []
        unnamed = [key for key, record in zip(keys, named, strict=True) if record is None]
        for key in unnamed:
            await self._files.store.delete(key)
        return len(unnamed)
