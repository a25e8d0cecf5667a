"""Changes that may end a job without a commit: what it made is then what its log holds, and its row offers that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ropeway.domain.change import Change, ends_unheard, with_output
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.event import START, Cursor
from ropeway.domain.job import Job
from ropeway.domain.log import LogQuery
from ropeway.domain.output import Made
from ropeway.engines.redis.moving import TRIES, Answer, Rule, change
from ropeway.engines.redis.partition import Partition
from ropeway.engines.redis.reading import events

__all__ = ["change_kept"]

PAGE = 1000


class _Told:
    """What the logs of some jobs were found to hold, each with the version that its row had before the look."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._outputs: dict[str, tuple[int, str | None]] = {}
        self.unread: dict[str, Job] = {}

    def rule(self, job: Job | None, now_ms: int) -> Any:
        """The rule; a job whose log must be read first is left as it is, and noted."""
        outcome = self._rule(job, now_ms)
        if job is None or not isinstance(outcome, Change) or not ends_unheard(outcome):
            return outcome
        version, output = self._outputs.get(job.id, (None, None))
        if version != job.version:  # it was written since: there may be more in its log
            self.unread[job.id] = job
            return None
        return with_output(outcome, output)

    async def read(self, partition: Partition) -> list[str]:
        """Read what is unread; whose logs they were."""
        for job in self.unread.values():
            self._outputs[job.id] = job.version, await _output(partition, job)
        ids = list(self.unread)
        self.unread.clear()
        return ids


async def change_kept(
    partition: Partition, job_ids: Sequence[str], rule: Rule, *, inputs: bool = False
) -> list[Answer]:
    """As `change`; a job that the rule ends, and that no attempt ended, gets the output that its log holds."""
    told = _Told(rule)
    answers = dict(zip(job_ids, await change(partition, job_ids, told.rule, inputs=inputs), strict=True))
    for _ in range(TRIES):
        left = await told.read(partition)
        if not left:
            return [answers[job_id] for job_id in job_ids]
        answers.update(zip(left, await change(partition, left, told.rule, inputs=inputs), strict=True))
    raise EngineUnavailable("a job's log is written too often for the job to be ended")


async def _output(partition: Partition, job: Job) -> str | None:
    made = Made()
    after: Cursor = START
    while True:
        (page,) = await events(partition, [LogQuery(job.tenant, job.id, after, PAGE)])
        if page is None or not page.events:
            return made.row_output
        made.add(page.events)
        after = page.events[-1].cursor
