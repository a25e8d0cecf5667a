"""What must be true of queues: order, fair tags, depth limits and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ropeway.domain.errors import QueueFull, TooManyQueued
from ropeway.domain.job import Job, Receipt
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueueChange, QueuePolicy, QueueStats
from ropeway.domain.rank import Priority, goes_before, place, rank_of, start_of
from ropeway.domain.webhook import DELIVERY_QUEUE
from ropeway.testing.history.facts import Facts, Moment
from ropeway.testing.history.invariants.bands import with_passed
from ropeway.testing.history.record import Look, Violation

__all__ = ["counts_are_exact", "depths_are_kept", "policies_after", "positions_are_true", "tags_are_fair"]

Ended = Counter[tuple[str, str, State]]
"""How many jobs ever ended, by queue, tenant and state."""


def tags_are_fair(facts: Facts) -> Iterator[Violation]:
    """F1: a job's rank is its band and `max(V, last finish of its tenant)`, V the start of the job leased last."""
    virtual: dict[tuple[str, Priority], float] = {}
    finish: dict[tuple[str, Priority, str], float] = {}
    policies: dict[str, QueuePolicy] = {}
    for moment in facts.moments:
        for job in moment.born():
            band, flow = (job.queue, job.priority), (job.queue, job.priority, job.tenant)
            weight = policies.get(job.queue, QueuePolicy(job.queue)).weights.get(job.tenant, 1.0)
            start, _ = place(virtual.get(band, 0.0), finish.get(flow, 0.0), job.options.cost, weight)
            if len(moment.step.ops) == 1 and job.rank != rank_of(job.priority, start):
                text = f"{job.id} got rank {job.rank}, not {rank_of(job.priority, start)}"
                yield Violation("F1", moment.step.number, text)
            # the furthest, as submits at the same time are taken in any order
            finish[flow] = max(finish.get(flow, 0.0), start_of(job.rank) + job.options.cost / weight)
        for old, new in moment.changes:
            if new is not None and new.runs > (old.runs if old else 0):
                band = (new.queue, new.priority)
                virtual[band] = max(virtual.get(band, 0.0), start_of(new.rank))
        policies_after(moment, policies)


def positions_are_true(facts: Facts) -> Iterator[Violation]:
    """R2: a queued job's position is how many go before it: in its queue's turns, or where it is parked."""
    for moment, passed in with_passed(facts):
        op = moment.only
        if op is None or op.call.method != "position":
            continue
        tenant, job_id = op.call.args
        job = moment.before.jobs.get(job_id)
        expected = None
        if job is not None and job.tenant == tenant and job.state is State.queued:
            others = [other for other in moment.before.jobs.values() if _is_beside(other, job)]
            if any(_rank_of(facts, other) == _rank_of(facts, job) for other in others):
                continue  # two jobs of one burst: their order is not ours to tell
            expected = sum(_rank_of(facts, other) < _rank_of(facts, job) for other in others)
            counted = passed.get(job.queue, {})
            higher = sum(other.priority > job.priority for other in others)
            if job.parked is None and higher:
                if counted is None:
                    continue
                expected = goes_before(expected - higher, higher, counted.get(job.priority, 0))
        if op.answer != expected:
            yield Violation("R2", moment.step.number, f"the position of {job_id} is {expected}, not {op.answer}")


def depths_are_kept(facts: Facts) -> Iterator[Violation]:
    """D1: a submit is taken while there is room, in all and for its tenant, and refused when there is none."""
    policies: dict[str, QueuePolicy] = {}
    for moment in facts.moments:
        if moment.only_answer("submit", "retry") is not None:
            yield from _depth_faults(facts, moment, policies)
        policies_after(moment, policies)


def counts_are_exact(facts: Facts) -> Iterator[Violation]:
    """C1: the counts of each queue, in all and per tenant, are those of its jobs; ended ones are counted for ever."""
    ended: Ended = Counter()
    for moment in facts.moments:
        for old, new in moment.changes:
            if new is not None and new.state.terminal and not (old is not None and old.state.terminal):
                ended[new.queue, new.tenant, new.state] += 1
        told = moment.only_answer("stats")
        if told is not None and moment.only is not None:
            yield from _count_faults(facts, told, moment.step.look, ended, moment.only.call.args[0], moment.step.number)
    for tenant, told in facts.history.stats.items():
        yield from _count_faults(facts, told, facts.history.end, ended, tenant, len(facts.moments))


def policies_after(moment: Moment, policies: dict[str, QueuePolicy]) -> None:
    """Take in the policies that a step changed."""
    for op in moment.step.ops:
        if op.call.method == "set_queue" and op.is_ok:
            for change in op.call.args[0]:
                assert isinstance(change, QueueChange)
                policies[change.queue] = change.applied_to(policies.get(change.queue, QueuePolicy(change.queue)))


def _is_beside(other: Job, job: Job) -> bool:
    """Whether two jobs stand in one line, or are parked under one key."""
    if other.id == job.id or other.state is not State.queued or other.parked != job.parked:
        return False
    return job.parked is not None or other.queue == job.queue


def _rank_of(facts: Facts, job: Job) -> tuple[float, tuple[int, int]]:
    return job.rank, facts.born_at[job.id]


def _depth_faults(facts: Facts, moment: Moment, policies: dict[str, QueuePolicy]) -> Iterator[Violation]:
    assert moment.only is not None
    waiting = Counter((job.queue, job.tenant) for job in moment.before.jobs.values() if job.state in WAITING)
    for item, answer in moment.only.batch:
        if moment.only.call.method == "submit":
            queue, tenant = item.queue, item.tenant
        else:
            queue, tenant = _retried_queue(moment, item[0]), moment.only.call.args[0]
        depth = sum(n for (name, _), n in waiting.items() if name == queue)
        own = waiting[queue, tenant]
        policy = policies.get(queue, QueuePolicy(queue))
        full = depth >= policy.max_depth
        over = policy.max_depth_per_tenant is not None and own >= policy.max_depth_per_tenant
        if isinstance(answer, Receipt) and not answer.replayed and not answer.cached:
            waiting[queue, tenant] += 1
            if full or over or answer.depth != depth + 1:
                text = f"{answer.job.id} was taken at depth {depth} ({own} own) of {policy}, told {answer.depth}"
                yield Violation("D1", moment.step.number, text)
        elif isinstance(answer, QueueFull) and (not full or answer.depth != depth):
            yield Violation("D1", moment.step.number, f"queue full at depth {depth}, told {answer.depth}, of {policy}")
        elif isinstance(answer, TooManyQueued) and (not over or answer.depth != own):
            yield Violation("D1", moment.step.number, f"too many at {own} own, told {answer.depth}, of {policy}")


def _retried_queue(moment: Moment, job_id: str) -> str:
    job = moment.before.jobs.get(job_id)
    return "" if job is None else job.queue


def _count_faults(
    facts: Facts, told: list[QueueStats], look: Look, ended: Ended, tenant: str | None, step: int
) -> Iterator[Violation]:
    for stats in told:
        if stats.queue == DELIVERY_QUEUE:
            continue  # its jobs are made by others' ends: see I12
        jobs = [job for job in look.jobs.values() if job.queue == stats.queue and tenant in (None, job.tenant)]
        live = Counter(job.state for job in jobs)
        expected = {state: live[state] for state in (*WAITING, State.running)}
        for state in (State.succeeded, State.failed, State.cancelled):
            those = (n for key, n in ended.items() if key[0] == stats.queue and key[2] is state)
            mine = (n for key, n in ended.items() if key == (stats.queue, tenant, state))
            expected[state] = sum(those if tenant is None else mine)
        counted = {state: getattr(stats, state.value) for state in State}
        if counted != expected or stats.oldest_queued_at_ms not in _oldest(facts, jobs):
            yield Violation("C1", step, f"{stats.queue} of {tenant}: {stats}, not {expected}")
    missing = {job.queue for job in look.jobs.values()} - {stats.queue for stats in told}
    if missing:
        yield Violation("C1", step, f"queues {missing} are not counted at all")


def _oldest(facts: Facts, jobs: list[Job]) -> set[int | None]:
    """When the longest waiting job may have come: by the clock, or first of its tenant when that was set back."""
    queued = [job for job in jobs if job.state is State.queued]
    if not queued:
        return {None}
    first: dict[str, int] = {}
    for job in queued:
        first[job.tenant] = min(facts.born_at[job.id][0], first.get(job.tenant, len(facts.moments)))
    heads = {job.created_at_ms for job in queued if facts.born_at[job.id][0] == first[job.tenant]}
    return {min(job.created_at_ms for job in queued), *heads}
