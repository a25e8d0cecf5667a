"""What a worker does with files, together: what inputs bring, what tasks make beside, outputs too large for a row."""

from __future__ import annotations

import asyncio

from ropeway.blobs import Files
from ropeway.runtime.artifacts import Artifacts
from ropeway.runtime.attempt import Attempt
from ropeway.runtime.committer import Committer
from ropeway.runtime.intake import Brought, Intake
from ropeway.runtime.outputs import Outputs
from ropeway.runtime.patience import Jitter

__all__ = ["Filing"]


class Filing:
    """Made in the worker's loop. `files`: None where it has no store: inputs have no files then, nor large outputs."""

    def __init__(self, files: Files | None, committer: Committer, jitter: Jitter) -> None:
        self.intake = Intake(files)
        self.artifacts = Artifacts(files)
        self.outputs = Outputs(files, committer, jitter)
        self._loop = asyncio.get_running_loop()

    def over(self, attempt: Attempt, brought: Brought | None) -> None:
        """The attempt's code has ended: its copies go, and so does what it began to keep and did not wait for."""
        self.artifacts.forget(attempt)
        if brought is not None:
            self._loop.run_in_executor(None, brought.clear)
