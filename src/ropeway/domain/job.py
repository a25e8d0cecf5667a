"""Jobs: what a client submits, and the row that an engine keeps of it."""

from __future__ import annotations

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import Cursor
from ropeway.domain.lifecycle import State
from ropeway.domain.limit import Limit
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.webhook import Webhook

__all__ = [
    "CLAIM_MS",
    "DEFAULT_OPTIONS",
    "DEFAULT_TENANT",
    "CacheKey",
    "Job",
    "JobOptions",
    "JobQuery",
    "NewJob",
    "Receipt",
    "check_name",
    "expiry_ms",
    "job_of",
    "renewed",
]

DEFAULT_TENANT = "default"

CLAIM_MS = 86_400_000  # guarantee G2: an idempotency key stays claimed for at least 24 hours

_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_NAME_LIMIT = 128


def check_name(kind: str, name: str) -> str:
    """`name`, if it may name a queue, task or tenant: 1-128 of letters, digits, `_`, `-`, `.`.

    Raises InvalidRequest otherwise: such names go into keys and paths, where anything else is a hole.
    """
    if not 1 <= len(name) <= _NAME_LIMIT or not _NAME_CHARS.issuperset(name):
        raise InvalidRequest(
            f"{name[:_NAME_LIMIT]!r} is no {kind} name: 1 to {_NAME_LIMIT} of letters, digits, '_', '-', '.'",
            param=kind,
        )
    return name


class JobOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a job is to be run; fixed at submit.

    Attributes:
        timeout_s: seconds an attempt may run. None: as long as it takes.
        queue_timeout_s: seconds to wait for the first start, else the job fails with `queue_timeout`.
        first_output_timeout_s: seconds from an attempt's start to its first output. None: as long as it takes.
        output_timeout_s: seconds that may pass between two outputs, and from the last one to the end.
        retention_s: seconds a job is kept after it succeeded or was cancelled. None: for ever.
        failed_retention_s: the same after it failed; for ever by default, since a dead letter is somebody's work.
        max_crashes: attempts that may end by the death of their worker; apart from the retries.
        max_snoozes: how often an attempt may be given back by a snooze; those given back at a drain count with them.
        resumable: an attempt goes on from the output of those before it, which readers keep.
        cost: what the job weighs in fair sharing between tenants.
        cost_measure: `tokens`: the cost is an estimate in tokens, put right when the job's usage tells of more or less.
        after: the jobs whose ends it waits for before it runs. after_failure: what becomes of it when one of them does
            not succeed: `fail`, or `run` all the same when all have ended (domain/flow.py).
        parent: the job whose attempt submitted it, with which it is cancelled.
        limits: what it runs under, shared by all workers (domain/limit.py).
        concurrency_key: what `{concurrency_key}` in the keys of its task's limits stands for.
        metadata: the caller's own pairs, returned as given. tags: to find jobs by.
        webhook: whom to tell of its end.
    """

    timeout_s: float | None = None
    queue_timeout_s: float | None = None
    retention_s: float | None = 86_400.0
    failed_retention_s: float | None = None
    retry: Retry = Retry()
    max_crashes: int = 3
    cost: float = 1.0
    cost_measure: str | None = None
    concurrency_key: str | None = None
    on_disconnect: str = "continue"
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    traceparent: str | None = None
    webhook: Webhook | None = None
    limits: tuple[Limit, ...] = ()
    first_output_timeout_s: float | None = None
    output_timeout_s: float | None = None
    max_snoozes: int = 1000
    resumable: bool = False
    after: tuple[str, ...] = ()
    after_failure: str = "fail"
    parent: str | None = None


DEFAULT_OPTIONS = JobOptions()


class CacheKey(msgspec.Struct, frozen=True, gc=False):
    """The content of a submit that another may have asked before (see `domain.cache`), as 32 hex digits.

    `ttl_ms`: a result is good enough until so long after its job's end. `fresh`: none is; the new job takes the key.
    """

    key: str
    ttl_ms: int
    fresh: bool = False


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job as it is submitted. `input` is JSON text. `delay_ms` counts from the engine's now.

    `idempotency_key` with `fingerprint` (of the canonical body) claims the key in the same step as the submit.
    `max_own`: how many jobs of this tenant may wait in the queue, where the queue's own policy does not say less.
    `cache`: it may be answered with an earlier job of the same key, and takes the key otherwise; then `id` is made by
    `domain.cache.keyed_id`. An idempotency key is looked at first.
    """

    id: str
    tenant: str
    queue: str
    task: str
    input: str
    priority: Priority = Priority.normal
    delay_ms: int = 0
    options: JobOptions = DEFAULT_OPTIONS
    idempotency_key: str | None = None
    fingerprint: str = ""
    retry_of: str | None = None
    max_own: int | None = None
    cache: CacheKey | None = None


class Job(msgspec.Struct, frozen=True, gc=False):
    """A job as the engine holds it.

    Instants are `_at_ms`: ms since the epoch on the engine's clock. `input`, `output`, `error` (a JobError), `usage`
    and `progress` are JSON text. `attempt` is the number of the current or last attempt; `runs` counts leases, those
    given back at a drain too; `crashes` those that ended by the death of their worker. `version` rises with every
    write. The next event gets the id `<epoch>-<seq>`. `started_epoch` is the epoch whose opening events are derived
    from this row when read; 0 when they are stored already, or there are none. `token` and `last_outcome` stay after a
    commit, so that the holder's repeat of it is known. `parked` is the key of the limit that a queued job waits for,
    out of its line. `joined` is how many submits share it beside the first; `sharers` under which ids and words the
    last of them came and went. `woken_epoch` is that of the attempt during which it was woken: a snooze of that very
    attempt lasts no time.
    """

    id: str
    tenant: str
    queue: str
    task: str
    input: str
    options: JobOptions
    priority: Priority
    state: State
    rank: float
    version: int
    attempt: int
    crashes: int
    runs: int
    epoch: int
    seq: int
    started_epoch: int
    created_at_ms: int
    run_at_ms: int | None = None
    queue_deadline_ms: int | None = None
    started_at_ms: int | None = None
    first_output_at_ms: int | None = None
    finished_at_ms: int | None = None
    expires_at_ms: int | None = None
    cancel_requested_at_ms: int | None = None
    cancel_reason: str | None = None
    worker: str | None = None
    session: str | None = None
    token: str | None = None
    last_outcome: str | None = None
    progress: str | None = None
    output: str | None = None
    error: str | None = None
    usage: str | None = None
    retry_of: str | None = None
    parked: str | None = None
    joined: int = 0
    sharers: str | None = None
    woken_epoch: int = 0

    @property
    def attempts_spent(self) -> bool:
        """Whether no attempt is left after the current one fails. Crashes have a budget of their own."""
        return self.attempt - self.crashes >= self.options.retry.max_attempts

    @property
    def given_back(self) -> int:
        """How many attempts were given back, by a snooze or at a drain: leases that cost no attempt."""
        return self.runs - self.attempt

    @property
    def last_cursor(self) -> Cursor:
        """The id of the newest event in the job's log."""
        return Cursor(self.epoch, self.seq - 1)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The answer to one accepted submit.

    `replayed` is True when an idempotency key gave an earlier job back, `cached` when the same content did. `depth` is
    how many jobs wait in its queue, this one included.
    """

    job: Job
    replayed: bool = False
    depth: int = 0
    cached: bool = False


class JobQuery(msgspec.Struct, frozen=True):
    """A filter over one tenant's jobs, newest first. `before` is the `next_cursor` of the page before."""

    tenant: str
    states: tuple[State, ...] = ()
    queue: str | None = None
    task: str | None = None
    tag: str | None = None
    limit: int = 50
    before: str | None = None


def expiry_ms(options: JobOptions, state: State, now_ms: int) -> int | None:
    """When a job that ends now in `state` is past its retention; None: never."""
    kept_s = options.failed_retention_s if state is State.failed else options.retention_s
    return None if kept_s is None else now_ms + round(kept_s * 1000)


def renewed(job: Job, new_id: str) -> NewJob:
    """A job that has ended, to be submitted again under a new id: a child's by itself, for its parent may be over."""
    options = job.options if job.options.parent is None else msgspec.structs.replace(job.options, parent=None)
    return NewJob(new_id, job.tenant, job.queue, job.task, job.input, job.priority, options=options, retry_of=job.id)


def job_of(new: NewJob, rank: float, now_ms: int) -> Job:
    """The row of a job that is submitted now, at this place in its queue."""
    queue_timeout_s = new.options.queue_timeout_s
    run_at_ms = now_ms + new.delay_ms if new.delay_ms > 0 else None
    return Job(
        new.id,  # by position, up to created_at_ms: by name it takes four times as long
        new.tenant,
        new.queue,
        new.task,
        new.input,
        new.options,
        new.priority,
        State.queued if run_at_ms is None else State.scheduled,
        rank,
        1,  # version
        0,  # attempt
        0,  # crashes
        0,  # runs
        0,  # epoch
        2,  # seq
        0,  # started_epoch
        now_ms,
        run_at_ms=run_at_ms,
        queue_deadline_ms=None if queue_timeout_s is None else (run_at_ms or now_ms) + round(queue_timeout_s * 1000),
        retry_of=new.retry_of,
    )
