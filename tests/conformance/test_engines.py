"""Every promise of the engine protocol, on every engine."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from harnesses import HARNESSES
from redis_harness import SpreadHarness
from ropeway.testing.conformance import CHECKS, Check, checks_for, run
from ropeway.testing.harness import Harness

LINES = "each partition has a line of its own: places, priorities and fair shares are kept within it, not among them"
DEPTHS = "each partition counts and bounds what waits in it, so a queue over three takes up to three times its limits"
LIMITS = "each partition keeps limits for its own jobs, so over three as many as three times what one allows may start"
CLOCKS = "jobs of several partitions are listed by the clocks of their servers, and the tests' clock stands still"

SPREAD: dict[str, str] = {
    "a_lease_passes_over_who_waited_too_long": LINES,
    "a_tenants_jobs_run_first_in_first_out": LINES,
    "a_higher_priority_goes_first": LINES,
    "a_lower_priority_gets_a_tenth": LINES,
    "a_band_in_which_nothing_waits_is_owed_nothing": LINES,
    "a_position_knows_of_the_floor": LINES,
    "what_a_job_took_moves_its_tenants_next_place": LINES,
    "each_attempt_is_paid_for": LINES,
    "tenants_take_turns": LINES,
    "weights_share_exactly": LINES,
    "costs_weigh": LINES,
    "a_late_tenant_starts_at_virtual_time": LINES,
    "an_idle_tenant_saves_nothing_up": LINES,
    "an_expired_job_moves_no_virtual_time": LINES,
    "bands_keep_their_own_time": LINES,
    "queues_keep_their_own_time": LINES,
    "a_job_comes_back_to_its_place": LINES,
    "a_promoted_job_has_the_place_of_its_submit": LINES,
    "position_counts_who_goes_before": LINES,
    "position_is_for_queued_jobs_alone": LINES,
    "queues_are_served_in_the_order_asked": LINES,
    "order_outlives_the_engine": LINES,
    "counts_are_exact": LINES,  # the counts are; which jobs run, that it counts on, is another matter
    "the_oldest_queued_job_is_told": LINES,  # likewise
    "a_refused_submit_claims_no_key": DEPTHS,
    "a_served_submit_needs_no_room": DEPTHS,
    "a_full_queue_takes_no_more": DEPTHS,
    "running_jobs_do_not_fill_a_queue": DEPTHS,
    "a_tenant_has_a_limit_of_its_own": DEPTHS,
    "a_tenants_limit_comes_before_the_queues": DEPTHS,
    "a_job_may_bring_its_own_limit": DEPTHS,
    "a_lowered_limit_drops_nobody": DEPTHS,
    "a_retry_needs_room": DEPTHS,
    "each_job_of_a_batch_has_an_answer_of_its_own": DEPTHS,
    "a_receipt_tells_how_many_wait": DEPTHS,
    "no_more_run_at_once_than_a_limit_allows": LIMITS,
    "a_parked_job_holds_nobody_up": LIMITS,
    "every_end_of_an_attempt_frees_its_place": LIMITS,
    "a_session_that_closes_frees_its_places": LIMITS,
    "a_place_that_becomes_free_is_hinted_at": LIMITS,
    "a_time_that_a_key_waits_for_is_hinted_at": LIMITS,
    "a_job_that_does_not_fit_takes_nothing": LIMITS,
    "a_job_waits_for_one_limit_after_the_other": LIMITS,
    "a_rate_is_kept": LIMITS,
    "a_bucket_refills_to_its_burst": LIMITS,
    "a_place_is_free_at_the_end_and_a_rate_is_not": LIMITS,
    "an_estimate_is_put_right": LIMITS,
    "more_than_a_burst_can_be_had_of_a_full_bucket": LIMITS,
    "a_small_job_does_not_pass_a_large_one": LIMITS,
    "a_pause_holds_a_key": LIMITS,
    "a_provider_knows_what_is_left": LIMITS,
    "what_an_operator_sets_counts": LIMITS,
    "limits_outlive_the_engine": LIMITS,
    "a_parked_job_can_be_cancelled": LIMITS,
    "a_called_job_that_goes_away_lets_others_start": LIMITS,
    "a_paused_queue_does_not_keep_a_limit": LIMITS,
    "a_parked_job_may_be_too_late": LIMITS,
    "a_parked_job_keeps_its_place": LIMITS,
    "a_queue_has_a_limit_of_its_own": LIMITS,
    "a_long_line_of_those_who_do_not_fit_is_passed": LIMITS,
    "jobs_are_found_newest_first": CLOCKS,
    "filters_narrow_together": CLOCKS,
    "pages_join_without_gap_or_repeat": CLOCKS,
    "pages_stand_still_while_jobs_come_and_go": CLOCKS,
}
"""What an engine whose jobs are spread over several partitions does not promise, and why not."""


def parameters() -> list[ParameterSet]:
    return [_parameter(harness, check) for harness in HARNESSES for check in checks_for(harness)]


def _parameter(harness: Harness, check: Check) -> ParameterSet:
    reason = SPREAD.get(check.name) if harness.name == SpreadHarness.name else None
    # Not strict: an order that nobody keeps may come out right. Only a promise may break, nothing else.
    marks = [] if reason is None else [pytest.mark.xfail(raises=AssertionError, strict=False, reason=reason)]
    return pytest.param(harness, check, id=f"{harness.name}-{check.name}", marks=marks)


@pytest.mark.parametrize(("harness", "check"), parameters())
async def test_promise(harness: Harness, check: Check) -> None:
    """The engine keeps this promise (see the check's docstring)."""
    await run(check, harness)


def test_what_is_not_promised_is_known() -> None:
    """Each exception names a check that there is."""
    assert SPREAD.keys() <= CHECKS.keys()
