"""On the way to the commit: an output too large for its job's row goes into a file, and the row names that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from ropeway.blobs import About, Files
from ropeway.domain.errors import EngineUnavailable, RopewayError, TaskFault
from ropeway.domain.file import JSON_CONTENT_TYPE, OUTPUT_PURPOSE, FilesUnavailable, reference
from ropeway.domain.lease import Outcome
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.committer import Committer
from ropeway.runtime.judge import judge_failure
from ropeway.runtime.patience import Jitter, Patience

__all__ = ["INLINE_BYTES", "Outputs"]

INLINE_BYTES = 256 << 10
TRIES = 30  # about half a minute: a store that is away for longer fails the attempt, and its retry comes later
_FINAL = frozenset({"succeeded", "failed", "cancelled"})  # of others the output is not kept for long


class Outputs:
    """The committer, with a store of files before it. Without one (None) large outputs stay in the row."""

    def __init__(self, files: Files | None, committer: Committer, jitter: Jitter) -> None:
        self._files = files
        self._committer = committer
        self._jitter = jitter
        self._spilling: set[asyncio.Task[None]] = set()

    def add(self, attempt: Attempt, outcome: Outcome) -> None:
        """Commit this, sooner or later; unless its lease is lost."""
        output = outcome.output
        if self._files is None or output is None or len(output) <= INLINE_BYTES or outcome.kind not in _FINAL:
            self._committer.add(attempt, outcome)
            return
        task = asyncio.get_running_loop().create_task(self._spill(self._files, attempt, outcome, output.encode()))
        self._spilling.add(task)  # the loop holds its tasks but weakly
        task.add_done_callback(self._spilling.discard)

    async def _spill(self, files: Files, attempt: Attempt, outcome: Outcome, output: bytes) -> None:
        """Until it is kept the lease is held. A file whose commit is lost after that is swept with the job."""
        assignment = attempt.assignment
        about = About("output.json", JSON_CONTENT_TYPE, OUTPUT_PURPOSE, job=assignment.lease.job_id)
        patience = Patience(self._jitter)
        for tried in range(1, TRIES + 1):
            if attempt.lost:
                break
            try:
                file = await files.create(assignment.tenant, _pieces(output), about)
                outcome = msgspec.structs.replace(outcome, output=msgspec.json.encode(reference(file.id)).decode())
                break
            except RopewayError as error:
                passing = isinstance(error, EngineUnavailable | FilesUnavailable)
                if passing and tried < TRIES:
                    await patience.wait()
                    continue
                fault = TaskFault(f"the output could not be kept: {error.detail}", code=error.code)
                outcome = judge_failure(attempt, fault, None, self._jitter)
                break
        self._committer.add(attempt, outcome)


async def _pieces(output: bytes) -> AsyncIterator[bytes]:
    yield output
