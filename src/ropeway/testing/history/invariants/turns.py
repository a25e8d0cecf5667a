"""What must be true of whose turn it is: leases in order, times kept to the millisecond, sessions lost only in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ropeway.domain.job import Job
from ropeway.domain.lease import LeaseRequest, Renewal
from ropeway.domain.lifecycle import WAITING, State
from ropeway.domain.queue import QueuePolicy
from ropeway.engines.base import Promotion
from ropeway.testing.history.facts import Change, Facts, Moment
from ropeway.testing.history.invariants.bands import Passed, in_line, place_of, turns, with_passed
from ropeway.testing.history.invariants.queues import policies_after
from ropeway.testing.history.record import Look, Violation

__all__ = ["leases_go_by_rank", "sessions_are_lost_in_time", "times_are_kept"]


class Span(NamedTuple):
    """When a session ends: between these times, as a renewal whose reply was lost may count or not."""

    soonest_ms: int
    latest_ms: int


Sessions = dict[str, Span]
"""The sessions known to be open. One that is absent and not in `unsure` is known to be none."""


def leases_go_by_rank(facts: Facts) -> Iterator[Violation]:
    """R1: a lease takes those whose turn it is in its queues, of unpaused ones alone, in order, and no others."""
    policies: dict[str, QueuePolicy] = {}
    for (moment, sessions, unsure), (_, passed) in zip(_with_sessions(facts), with_passed(facts), strict=True):
        leased = moment.only_answer("lease")
        if leased is not None and moment.only is not None:
            request = moment.only.call.args[0]
            is_open = _is_open(sessions.get(request.session), moment.step.at_ms)
            if is_open is not None and request.session not in unsure:
                expected = _expected_lease(facts, moment, request, policies, passed) if is_open else []
                keys = [place_of(facts, moment.before.jobs[held.job_id]) for held in leased]
                if expected is not None and keys != [place_of(facts, job) for job in expected]:
                    told, due = [held.job_id for held in leased], [job.id for job in expected]
                    yield Violation("R1", moment.step.number, f"{request} was given {told}, not {due}")
        policies_after(moment, policies)


def times_are_kept(facts: Facts) -> Iterator[Violation]:
    """P1: a promotion queues what is due and fails what waited too long, all of it, no other, and tells the next."""
    for moment in facts.moments:
        promotion = moment.only_answer("promote")
        now = moment.step.at_ms
        for old, new in moment.changes:
            if old is None or new is None or moment.step.only is None:
                continue
            is_early = old.state is State.scheduled and new.state is State.queued and (old.run_at_ms or 0) > now
            if is_early and moment.step.only.call.method != "wake":
                yield Violation("P1", moment.step.number, f"{old.id} was queued before it was due")
            timed_out = new.state is State.failed and old.state in WAITING
            if timed_out and (old.queue_deadline_ms is None or old.queue_deadline_ms > now):
                yield Violation("P1", moment.step.number, f"{old.id} failed before its queue deadline")
            if new.state is State.running and old.queue_deadline_ms is not None and old.queue_deadline_ms <= now:
                yield Violation("P1", moment.step.number, f"{old.id} was leased after its queue deadline")
        if isinstance(promotion, Promotion):
            yield from _promotion_faults(moment, promotion)


def sessions_are_lost_in_time(facts: Facts) -> Iterator[Violation]:
    """S1: a rescue ends the attempts of all expired sessions and of no other, and a renewal tells the truth."""
    for moment, sessions, unsure in _with_sessions(facts):
        op, now = moment.only, moment.step.at_ms
        if op is None:
            continue
        if op.call.method == "rescue":
            yield from _rescue_faults(moment, sessions, unsure)
        elif isinstance(op.answer, Renewal) and op.call.args[0] not in unsure:
            session = op.call.args[0]
            asked = {job.id for job in _held(moment.before, session) if job.cancel_requested_at_ms is not None}
            known = sessions.get(session)
            if op.answer.alive != (known is not None) or set(op.answer.cancelled) != (asked if known else set()):
                text = f"{session} ({known}, now {now}) asked to cancel {asked} was told {op.answer}"
                yield Violation("S1", moment.step.number, text)
        elif op.call.method == "close" and _held(moment.step.look, op.call.args[0]):
            yield Violation("S1", moment.step.number, f"{op.call.args[0]} is closed and holds jobs")


def _with_sessions(facts: Facts) -> Iterator[tuple[Moment, Sessions, set[str]]]:
    """Each moment with the sessions open before it, and those of which nothing is sure."""
    sessions: Sessions = {}
    unsure: set[str] = set()
    for moment in facts.moments:
        yield moment, sessions, unsure
        if len(moment.step.ops) == 1:
            _follow(moment, sessions, unsure)
        elif moment.step.ops:
            touched = {op.call.args[0] for op in moment.step.ops if op.call.method in ("renew", "close")}
            if any(op.call.method == "rescue" for op in moment.step.ops):
                touched |= {name for name, span in sessions.items() if span.soonest_ms <= moment.step.at_ms}
            unsure |= touched


def _follow(moment: Moment, sessions: Sessions, unsure: set[str]) -> None:
    """Take in what one call made of the sessions."""
    op, now = moment.step.ops[0], moment.step.at_ms
    if op.call.method == "announce":
        card = op.call.args[0]
        sessions[card.session] = Span(now + card.ttl_ms, now + card.ttl_ms)
        unsure.discard(card.session)
    elif op.call.method == "close" and not op.is_ok:
        unsure.add(op.call.args[0])
    elif op.call.method == "close":
        sessions.pop(op.call.args[0], None)
        unsure.discard(op.call.args[0])
    elif op.call.method == "renew" and op.call.args[0] in sessions:
        session, ttl_ms = op.call.args
        span = Span(now + ttl_ms, now + ttl_ms)
        if not op.is_ok:
            known = sessions[session]
            span = Span(min(known.soonest_ms, now + ttl_ms), max(known.latest_ms, now + ttl_ms))
        sessions[session] = span
    elif op.call.method == "rescue":
        for name in [name for name, span in sessions.items() if span.soonest_ms <= now]:
            if op.is_ok and op.call.args[0] > 1 and sessions[name].latest_ms <= now:
                del sessions[name]
            else:
                unsure.add(name)


def _is_open(span: Span | None, now: int) -> bool | None:
    """Whether a session may lease now; None when that hangs on a renewal whose reply was lost."""
    if span is None or span.latest_ms <= now:
        return False
    return True if span.soonest_ms > now else None


def _expected_lease(
    facts: Facts, moment: Moment, request: LeaseRequest, policies: dict[str, QueuePolicy], passed: Passed
) -> list[Job] | None:
    """None: several priorities wait, and whose turn it is cannot be told."""
    expected: list[Job] = []
    jobs = moment.before.jobs.values()
    for queue in request.queues:
        policy = policies.get(queue, QueuePolicy(queue))
        most = request.limit - len(expected)
        if policy.max_running is not None:
            running = sum(job.queue == queue and job.state is State.running for job in jobs)
            most = min(most, policy.max_running - running)
        if policy.paused or most <= 0:
            continue
        counted = passed.get(queue, {})
        if counted is None and len({job.priority for job in jobs if in_line(job, queue)}) > 1:
            return None
        expected += turns(facts, moment, queue, counted or {}, most)[0]
    return expected


def _promotion_faults(moment: Moment, promotion: Promotion) -> Iterator[Violation]:
    assert moment.only is not None
    now, limit = moment.step.at_ms, moment.only.call.args[0]
    waiting = [job for job in moment.step.look.jobs.values() if job.state in WAITING]
    times = [at for job in waiting for at in (job.run_at_ms, job.queue_deadline_ms) if at is not None]
    next_at_ms = min(times, default=None)
    parked = any(job.parked is not None for job in waiting)  # they wait for times that their rows do not tell
    calls = sum(_is_call(change) for change in moment.changes)
    moves = len(moment.changes) - calls  # a job queued and failed by one may be counted as one move or as two
    if not moves <= promotion.moved <= min(2 * moves, limit) + calls:
        text = f"{promotion.moved} were said to move, {len(moment.changes)} did"
        yield Violation("P1", moment.step.number, text)
    told_ms = promotion.next_at_ms
    if told_ms != next_at_ms and (not parked or told_ms is None or (next_at_ms is not None and told_ms > next_at_ms)):
        yield Violation("P1", moment.step.number, f"the next time is {next_at_ms}, not {promotion.next_at_ms}")
    if promotion.moved < limit and next_at_ms is not None and next_at_ms <= now:
        yield Violation("P1", moment.step.number, f"something was due at {next_at_ms} and is not moved at {now}")


def _is_call(change: Change) -> bool:
    """Whether a parked job was called back into its line."""
    old, new = change
    return old is not None and new is not None and old.parked is not None and in_line(new, new.queue)


def _rescue_faults(moment: Moment, sessions: Sessions, unsure: set[str]) -> Iterator[Violation]:
    assert moment.only is not None
    now, limit = moment.step.at_ms, moment.only.call.args[0]
    lost = [old for old, new in moment.changes if old is not None and old.state is State.running]
    if moment.only.answer != len(lost) or len(lost) > limit:
        yield Violation("S1", moment.step.number, f"{moment.only.answer} were said to be rescued, {len(lost)} were")
    for job in lost:
        span = sessions.get(job.session or "")
        if job.session not in unsure and span is not None and span.soonest_ms > now:
            yield Violation("S1", moment.step.number, f"{job.id} was taken from live session {job.session} ({span})")
    for name, span in sessions.items():
        left = _held(moment.step.look, name)
        if name not in unsure and span.latest_ms <= now and left and len(lost) < limit:
            yield Violation("S1", moment.step.number, f"{left[0].id} was left to the dead session {name} ({span})")


def _held(look: Look, session: str) -> list[Job]:
    return [job for job in look.jobs.values() if job.state is State.running and job.session == session]
