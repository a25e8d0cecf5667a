"""The invariants, by number: pure functions from a history's facts to the places where it broke a promise.

I1-I12, I5b and L1 are those of the design's note on reliability; the others came with this protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ropeway.testing.history.facts import Facts
from ropeway.testing.history.invariants import (
    jobs,
    leases,
    limits,
    order,
    queues,
    rows,
    sharing,
    streams,
    turns,
    waking,
)
from ropeway.testing.history.record import Violation

__all__ = ["INVARIANTS", "Invariant"]

Invariant = Callable[[Facts], Iterable[Violation]]

INVARIANTS: dict[str, Invariant] = {
    "E1": rows.no_call_breaks,
    "I1": jobs.accepted_is_kept,
    "I2": jobs.keys_make_one_job,
    "I3": leases.one_result_commits,
    "I4": leases.only_the_holder_writes,
    "I5": streams.logs_are_gapless,
    "I5b": streams.events_never_change,
    "I5r": streams.readers_miss_nothing,
    "I6": streams.attempts_are_named,
    "I7": streams.logs_end_once,
    "I8": jobs.dead_letters_are_kept,
    "I9": jobs.strangers_learn_nothing,
    "I10": leases.budgets_are_kept,
    "I10a": leases.attempts_are_counted,
    "I11": leases.cancels_are_final,
    "I12": jobs.ends_are_told,
    "I13": streams.outputs_are_kept,
    "L1": jobs.all_ends,
    "A1": rows.ends_are_final,
    "A2": rows.states_follow_their_arrows,
    "A3": rows.versions_tell,
    "C1": queues.counts_are_exact,
    "D1": queues.depths_are_kept,
    "F1": queues.tags_are_fair,
    "J1": sharing.content_runs_once,
    "J2": sharing.sharers_are_counted,
    "K1": rows.crashes_leave_all,
    "P1": turns.times_are_kept,
    "Q1": limits.limits_are_kept,
    "Q2": limits.parked_jobs_are_called,
    "R1": turns.leases_go_by_rank,
    "R2": queues.positions_are_true,
    "S1": turns.sessions_are_lost_in_time,
    "U1": waking.wakings_are_kept,
    "U2": waking.wakings_do_no_more,
    "W1": order.calls_have_an_order,
}
"""Every invariant; its docstring is the promise."""
