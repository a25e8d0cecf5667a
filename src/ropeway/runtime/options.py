"""How a worker is set up, and what it can be seen to do."""

from __future__ import annotations

import os
import socket

import msgspec

from ropeway.domain.label import read_labels
from ropeway.domain.lease import DEFAULT_SESSION_TTL_MS

__all__ = ["BatchSnapshot", "Snapshot", "WorkerOptions"]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's settings.

    Attributes:
        name: for people, in jobs and lists; host and process id when empty.
        queues: those it serves, the first one first; those on which the application's tasks are declared when empty.
        concurrency: async jobs that it runs at once.
        threads: blocking jobs that it runs at once, and blocking steps of async ones; they start as they are needed.
        children: of each task with `run="process"`, at most; as many as there are cores when None.
        devices: what tasks with `device="gpu"` run on, one child to each; what is found here when None.
        labels: what else this worker is, as `key=value`: tasks may need it. See `domain.label`.
        grace_s: seconds that running jobs have to finish after a drain was asked for.
        cancel_grace_s: seconds that a job's code has to stop after it was asked to; then it is given up.
        session_ttl_ms: how long the worker may be silent before its jobs are given to others.
        stack_bytes: of each thread; address space, of which only what is touched becomes memory. None: as much as
            costs nothing here, which is 4 MiB on most systems.
        upkeep: whether it stands for election to the upkeep of the store.
        outage_s: how long running jobs go on while the engine cannot be reached, to commit when it is back. If only
            this worker is cut off, another may run the same jobs meanwhile; of both, only one can commit.
        safety_poll_s: an idle worker asks for work at least so often, though no hint came. One whose questions had no
            answer for three times as long, while the engine answers its renewals, is deaf: it leaves, and its process
            ends with exit code 70.
    """

    name: str = ""
    queues: tuple[str, ...] = ()
    concurrency: int = 1_000
    threads: int = 256
    children: int | None = None
    devices: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    grace_s: float = 30.0
    cancel_grace_s: float = 10.0
    session_ttl_ms: int = DEFAULT_SESSION_TTL_MS
    stack_bytes: int | None = None
    upkeep: bool = True
    outage_s: float = 300.0
    safety_poll_s: float = 15.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.threads < 1:
            raise ValueError("a worker needs concurrency and threads of at least 1")
        if self.children is not None and self.children < 1:
            raise ValueError("a worker needs children of at least 1")
        read_labels(self.labels)
        if self.grace_s < 0 or self.cancel_grace_s < 0:
            raise ValueError("grace periods must not be negative")
        if self.outage_s < 0 or self.safety_poll_s <= 0:
            raise ValueError("an outage's length must not be negative, nor a poll's interval 0")
        if self.session_ttl_ms < 500:
            raise ValueError("a session must live for at least 500 ms: it is renewed five times in that")
        if self.stack_bytes is not None and self.stack_bytes < 64 * 1024:
            raise ValueError("a thread needs a stack of at least 65536 bytes")

    @property
    def full_name(self) -> str:
        return self.name or f"{socket.gethostname()}-{os.getpid()}"


class BatchSnapshot(msgspec.Struct, frozen=True):
    """The batches of one task in a worker, since its start; `waiting` jobs and `running` calls at this moment.

    `jobs` / `batches` is their mean size, `largest` the most. `closed` counts them by the reason for which they were
    closed: `size`, `cost`, `wait`, `idle` (the queue was empty), `room` (as much was leased ahead as may be). `splits`
    counts calls that failed and were made again for halves.
    """

    batches: int = 0
    jobs: int = 0
    largest: int = 0
    closed: dict[str, int] = {}
    splits: int = 0
    waiting: int = 0
    running: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """A worker at this moment.

    `state` is starting, ready, busy, draining or ended. `running` counts attempts whose code runs, or waits for its
    batch, `committing` the outcomes that the engine has not acknowledged. `threads_abandoned`, whose jobs were given
    up, are busy too. `outcomes` counts ended attempts since the start by the state that their jobs came to: `queued`
    was released, or is tried again at once, `scheduled` is tried again later, `lost` was not ours any more.
    `safety_finds` counts how often an idle worker's look every `safety_poll_s` found work of which no hint had told:
    the log says which. `fired` counts the times of schedules that this worker made jobs of, `woken` the jobs that it
    woke because those before them had ended. `batches` is by task, of those whose jobs share calls. `children` are the
    processes of isolated tasks; those counted since the start `crashed` under a job, were `killed` because a job did
    not stop, or `recycled` after so many jobs or so much memory.
    """

    name: str
    state: str
    running: int = 0
    committing: int = 0
    concurrency: int = 0
    threads: int = 0
    threads_alive: int = 0
    threads_busy: int = 0
    threads_idle: int = 0
    threads_abandoned: int = 0
    threads_peak: int = 0
    outcomes: dict[str, int] = {}
    safety_finds: int = 0
    batches: dict[str, BatchSnapshot] = {}
    fired: int = 0
    woken: int = 0
    children: int = 0
    children_started: int = 0
    children_crashed: int = 0
    children_killed: int = 0
    children_recycled: int = 0
