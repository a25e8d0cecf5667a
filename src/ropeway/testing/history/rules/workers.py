"""What workers do, living and dead."""

from __future__ import annotations

import msgspec

from ropeway.domain.event import OUTPUT_DELTA
from ropeway.domain.lease import Append, Commit, LeaseRequest, Outcome
from ropeway.domain.lifecycle import State
from ropeway.domain.worker import WorkerCard
from ropeway.testing.history.record import Call
from ropeway.testing.history.world import QUEUES, SESSIONS, YEAR_MS, World

__all__ = ["announce", "append", "close", "commit", "lease", "renew", "sleep"]

KINDS = ("succeeded", "succeeded", "failed", "retry", "retry", "release", "cancelled")
TYPES = ("output.delta", "output.delta", "progress", "usage", "log")
TTL_MS = (1000, 5000)


def announce(world: World) -> Call:
    session = world.rng.choice(SESSIONS)
    return Call("announce", (WorkerCard(session, session, QUEUES, ttl_ms=world.rng.choice(TTL_MS)),))


def lease(world: World) -> Call | None:
    session = _session(world)
    queues = world.rng.choice((QUEUES, QUEUES[::-1], QUEUES[:1], QUEUES[1:]))
    return Call("lease", (LeaseRequest(session, f"worker-{session}", queues, world.rng.choice((1, 1, 2, 3))),))


def append(world: World) -> Call | None:
    """Events under a lease, at the number that its holder believes to come next, or now and then at another."""
    held = world.lease()
    if held is None:
        return None
    seq = world.next_seq.get(held.lease.token, held.next_seq)
    luck = world.rng.random()
    if luck < 0.1:
        seq = max(0, seq + world.rng.choice((-2, -1, 1)))
    elif luck < 0.3 and held.job_id in world.look.jobs:
        seq = world.look.jobs[held.job_id].seq  # what a zombie would take that looks where the log ends
    drafts = tuple(_draft(world.rng.choice(TYPES), world.number()) for _ in range(world.rng.choice((1, 1, 2, 3))))
    return Call("append", ([Append(held.lease, seq, drafts)],))


def commit(world: World) -> Call | None:
    """The end of an attempt or two."""
    commits = []
    for _ in range(world.rng.choice((1, 1, 2))):
        held = world.lease()
        if held is not None:
            commits.append(Commit(held.lease, _outcome(world)))
    return Call("commit", (commits,)) if commits else None


def sleep(world: World) -> Call | None:
    """A snooze of some length, as a rule by one whose job is known to run, and rather by one that was woken."""
    running = {job.token: job for job in world.look.jobs.values() if job.state is State.running}
    holders = [held for held in world.grants if held.lease.token in running]
    woken = [held for held in holders if running[held.lease.token].woken_epoch == held.lease.epoch]
    luck = world.rng.random()
    held = world.rng.choice((luck < 0.5 and woken) or holders) if holders and luck < 0.85 else world.lease()
    if held is None:
        return None
    delay_ms = world.rng.choice((0, 700, 700, 5000, YEAR_MS))
    return Call("commit", ([Commit(held.lease, Outcome("snooze", delay_ms=delay_ms))],))


def renew(world: World) -> Call | None:
    return Call("renew", (_session(world), world.rng.choice(TTL_MS)))


def close(world: World) -> Call | None:
    return Call("close", (world.rng.choice(SESSIONS),))


def _session(world: World) -> str:
    """One that announced itself lately, as a rule."""
    return world.rng.choice(world.live if world.rng.random() < 0.85 else SESSIONS)


def _outcome(world: World) -> Outcome:
    kind = world.rng.choice(KINDS)
    error = f'{{"code":"e{world.number()}","message":""}}' if kind in ("failed", "retry") else None
    delay_ms = world.rng.choice((0, 0, 700)) if kind == "retry" else 0
    number = world.number()
    outcome = Outcome(kind, str(number), error, world.rng.choice((None, str(world.number()))), delay_ms)
    # Neither is drawn: a seed's history stays what it was.
    if kind == "retry" and number % 4 == 3:
        return msgspec.structs.replace(outcome, kind="crashed")
    if kind != "release" or number % 2:
        return outcome
    return msgspec.structs.replace(outcome, kind="snooze", delay_ms=number % 4 * 350, detail=f"waits {number}")


def _draft(type_: str, number: int) -> tuple[str, str]:
    return type_, f'{{"index":0,"delta":{number}}}' if type_ == OUTPUT_DELTA else str(number)
