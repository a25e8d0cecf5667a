"""What a job made, for the end that no attempt committed: its row offers what its log holds."""

from __future__ import annotations

from ropeway.domain.change import Change, ends_unheard, with_output
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import Job
from ropeway.domain.output import Made
from ropeway.engines.sqlite.reading import read
from ropeway.engines.sqlite.transaction import Transaction

__all__ = ["kept"]

PAGE = 1000


def kept(tx: Transaction, job: Job, change: Change) -> Change:
    """The change; where it ends the job and no attempt did, with the output that its log holds."""
    if not ends_unheard(change):
        return change
    made = Made()
    after: Cursor = START
    while (page := read(tx, job.tenant, job.id, after, PAGE)) is not None and page.events:
        made.add(page.events)
        after = page.events[-1].cursor
    return with_output(change, made.row_output)
