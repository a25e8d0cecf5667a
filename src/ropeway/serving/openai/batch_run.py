"""One batch on its way: checked, made into jobs a window at a time, waited for, and written out.

Each step can be done again: jobs have ids and idempotency keys that follow from the batch, files have ids that do, and
the record is written by compare-and-set. So a gateway that dies leaves nothing but time to be made up for.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from ropeway.blobs import About
from ropeway.domain.errors import QueueFull, RopewayError, TooManyQueued
from ropeway.domain.file import FileNotFound, FileRecord
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.serving.openai.batch_lines import (
    CHUNK_LINES,
    check_line,
    chunks_of,
    job_id_of_line,
    job_of_line,
    result_of,
)
from ropeway.serving.openai.batch_record import Batch, BatchMoved, Fault, Shelf
from ropeway.serving.openai.intake import digest
from ropeway.serving.parts import Parts
from ropeway.serving.problems import problem_of

__all__ = ["BatchRun"]

LINE_LIMIT = 50_000
FAULT_LIMIT = 100
WINDOW_LINES = 1_000  # jobs of one batch that wait or run at a time: others find room in the queue
LOOK_S = 1.0  # how often its record is read for a cancel, while its jobs run
AGAIN_S = 1.0  # after a full queue

_OURS = ("validating", "in_progress")  # what a cancel may change under us


class BatchRun:
    """Goes on with one batch until it has ended."""

    def __init__(self, parts: Parts, shelf: Shelf, batch: Batch, version: int) -> None:
        self.batch = batch
        self._version = version
        self._parts = parts
        self._shelf = shelf
        self._files = parts.kept_files
        self._tenant = batch.caller.tenant

    async def go(self) -> None:
        """Raises BatchMoved, BatchGone, and what the engine and the files raise: try again then, from the record."""
        try:
            file = await self._files.get(self._tenant, self.batch.input_file)
        except FileNotFound:
            await self._fail(Fault("file_not_found", f"the input file {self.batch.input_file} is gone"))
            return
        if self.batch.status == "validating":
            await self._validate(file)
        if self.batch.status in ("in_progress", "cancelling"):
            await self._work(file)
        if self.batch.status == "finalizing":
            await self._write_out(file)
        await self._shelf.close(self.batch.id)

    # -- its record

    async def _save(self, **changes: Any) -> None:
        """Write these changes; a cancel that came meanwhile is taken along. Raises BatchMoved, BatchGone."""
        wanted = msgspec.structs.replace(self.batch, **changes)
        for _ in range(3):
            answer = await self._shelf.save(wanted, self._version)
            if isinstance(answer, int):
                self.batch, self._version = wanted, answer
                return
            now, self._version = answer
            if now.status != "cancelling" or (now.submitted, now.ended) != (self.batch.submitted, self.batch.ended):
                raise BatchMoved
            status = "cancelling" if wanted.status in _OURS else wanted.status
            at_ms = {**wanted.at_ms, "cancelling": now.at_ms["cancelling"]}
            wanted = msgspec.structs.replace(wanted, status=status, at_ms=at_ms)
        raise BatchMoved

    async def _look(self) -> None:
        """See whether it was cancelled. Raises BatchMoved."""
        now, version = await self._shelf.load(self._tenant, self.batch.id)
        if version == self._version:
            return
        if now.status != "cancelling" or now.submitted != self.batch.submitted:
            raise BatchMoved
        self.batch, self._version = now, version

    async def _to(self, status: str, **changes: Any) -> None:
        moved = self.batch.at(status, self._now_ms())
        await self._save(status=moved.status, at_ms=moved.at_ms, **changes)

    async def _fail(self, *faults: Fault) -> None:
        await self._to("failed", faults=faults)
        await self._shelf.close(self.batch.id)

    def _now_ms(self) -> int:
        return self._parts.clock.now_ms()

    # -- its steps

    async def _validate(self, file: FileRecord) -> None:
        """Read every line's frame once: a file with a fault in it is no batch, as with OpenAI."""
        faults: list[Fault] = []
        seen: set[bytes] = set()
        total = 0
        async for chunk in chunks_of(self._files, file):
            total += len(chunk)
            for n, text in chunk:
                fault = check_line(n, text, self.batch.endpoint, seen, self._parts.options.max_body_bytes)
                if fault is not None:
                    faults.append(fault)
            if total > LINE_LIMIT or len(faults) >= FAULT_LIMIT:
                break
        if total > LINE_LIMIT:
            faults = [Fault("too_many_requests", f"a batch has at most {LINE_LIMIT} lines")]
        if not total:
            faults = [Fault("empty_file", "the input file has no line")]
        if faults:
            await self._fail(*faults[:FAULT_LIMIT])
            return
        await self._to("in_progress", total=total)

    async def _work(self, file: FileRecord) -> None:
        """Keep a window of its jobs going until all have ended; or end those, when it is cancelled or out of time."""
        lines = chunks_of(self._files, file, self.batch.submitted)
        pending = deque(range(self.batch.ended, self.batch.submitted))
        ending: str | None = None
        async with contextlib.aclosing(lines):
            while self.batch.submitted < self.batch.total or pending:
                await self._look()
                ending = ending or self._ending()
                if ending is not None and not await self._stop(pending):
                    break
                if ending is None and self.batch.submitted < self.batch.total and len(pending) < WINDOW_LINES:
                    pending += await self._submit(await anext(lines))
                await self._settle(pending, may_wait=ending is not None or self._is_full(pending))
        failed = self.batch.total - self.batch.completed if ending == "expired" else self.batch.failed
        await self._to("finalizing", ending=ending or "completed", failed=failed)

    def _is_full(self, pending: deque[int]) -> bool:
        return len(pending) >= WINDOW_LINES or self.batch.submitted >= self.batch.total

    def _ending(self) -> str | None:
        if self.batch.status == "cancelling":
            return "cancelled"
        return "expired" if self._now_ms() >= self.batch.expires_at_ms else None

    async def _stop(self, pending: deque[int]) -> bool:
        """Have its jobs stop; whether any still runs."""
        ids = [job_id_of_line(self.batch, n) for n in pending]
        for start in range(0, len(ids), CHUNK_LINES):
            await self._parts.engine.cancel(self._tenant, ids[start : start + CHUNK_LINES], "the batch was ended")
        return bool(pending)

    async def _submit(self, chunk: list[tuple[int, bytes]]) -> list[int]:
        """Make jobs of these lines, or problems; the numbers of all."""
        jobs: list[tuple[int, NewJob]] = []
        problems: dict[int, str] = {}
        for n, text in chunk:
            try:
                jobs.append((n, await job_of_line(self._parts, self.batch, n, text)))
            except RopewayError as error:
                if error.retryable:  # the engine's trouble, not the line's
                    raise
                problems[n] = msgspec.json.encode(problem_of(error)).decode()
        while jobs:
            jobs = await self._offer(jobs, problems)
        await self._shelf.note(self.batch, problems)
        await self._save(submitted=chunk[-1][0] + 1)
        return [n for n, _ in chunk]

    async def _offer(self, jobs: list[tuple[int, NewJob]], problems: dict[int, str]) -> list[tuple[int, NewJob]]:
        """Submit these; those that found no room yet, and are worth another try a moment later."""
        again: dict[int, NewJob] = {}
        answers = await self._parts.engine.submit([job for _, job in jobs])
        for (n, job), answer in zip(jobs, answers, strict=True):
            if isinstance(answer, RopewayError):
                problems[n] = msgspec.json.encode(problem_of(answer)).decode()
            if isinstance(answer, QueueFull | TooManyQueued):
                again[n] = job
        if not again:
            return []
        await self._look()
        if self._ending() is not None:
            return []  # nobody waits for them any more: their problem is that there was no room
        for n in again:
            del problems[n]
        with self._parts.engine.listen("lifecycle") as hints:
            await hints.wait(AGAIN_S)
        return list(again.items())

    async def _settle(self, pending: deque[int], *, may_wait: bool) -> None:
        """Count what has ended, from the oldest on; wait a moment for that one when there is nothing else to do."""
        if not pending:
            return
        oldest = job_id_of_line(self.batch, pending[0])
        with self._parts.engine.listen(f"end:{oldest}") as hints:
            counts = await self._count(pending)
            if counts is None and may_wait:
                await hints.wait(LOOK_S)
                counts = await self._count(pending)
        if counts is not None:
            await self._save(**counts)

    async def _count(self, pending: deque[int]) -> dict[str, int] | None:
        """The counts, with those taken off `pending` that have ended; None when the oldest has not."""
        completed, failed, ended = self.batch.completed, self.batch.failed, self.batch.ended
        while pending:
            numbers = [pending[k] for k in range(min(CHUNK_LINES, len(pending)))]
            states = await self._states(numbers)
            for n in numbers:
                if states[n] is None:
                    break
                pending.popleft()
                ended = n + 1
                if states[n] is State.succeeded:
                    completed += 1
                else:
                    failed += 1
            else:
                continue
            break
        if ended == self.batch.ended:
            return None
        return {"completed": completed, "failed": failed, "ended": ended}

    async def _states(self, numbers: list[int]) -> dict[int, State | None]:
        """How each line has ended; None: not yet. One that became no job, or whose job is gone, has failed."""
        jobs = await self._parts.engine.get(self._tenant, [job_id_of_line(self.batch, n) for n in numbers])
        return {n: _end_of(job) for n, job in zip(numbers, jobs, strict=True)}

    async def _write_out(self, file: FileRecord) -> None:
        """Write the output and the errors, a file each where there is anything to write."""
        output = await self._write(file, "output") if self.batch.completed else None
        errors = await self._write(file, "error") if self.batch.failed else None
        await self._to(self.batch.ending, output_file=output, error_file=errors)

    async def _write(self, file: FileRecord, what: str) -> str:
        seed = digest(self.batch.id.encode(), what.encode())[:20]
        about = About(f"{self.batch.id}_{what}.jsonl", "application/jsonl", "batch_output", self.batch.output_ttl_s)
        made = await self._files.create(
            self._tenant,
            self._results(file, is_good=what == "output"),
            about,
            id=f"file_{self.batch.created_at_ms:012x}{seed}",
        )
        return made.id

    async def _results(self, file: FileRecord, *, is_good: bool) -> AsyncIterator[bytes]:
        async for chunk in chunks_of(self._files, file):
            numbers = [n for n, _ in chunk]
            ids = [job_id_of_line(self.batch, n) for n in numbers]
            jobs = dict(zip(numbers, await self._parts.engine.get(self._tenant, ids), strict=True))
            noted = await self._shelf.noted(self.batch, [n for n in numbers if jobs[n] is None])
            out = []
            for n, text in chunk:
                if n >= self.batch.submitted and self.batch.ending == "cancelled":
                    break  # never sent: it is in no file
                result = await result_of(self._parts, self.batch, n, text, jobs[n], noted.get(n))
                if result.is_good == is_good:
                    out.append(result.text)
            yield b"".join(out)


def _end_of(job: Job | None) -> State | None:
    if job is None:
        return State.failed
    return job.state if job.state.terminal else None
