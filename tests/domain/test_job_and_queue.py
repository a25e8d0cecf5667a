"""Jobs, leases and queues as data: names, budgets, policies, ids."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.clock import SystemClock
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.event import Cursor
from ropeway.domain.ids import job_id, lease_token
from ropeway.domain.job import DEFAULT_OPTIONS, Job, JobOptions, check_name
from ropeway.domain.lease import Assignment, Lease, next_epoch
from ropeway.domain.lifecycle import State
from ropeway.domain.queue import DEFAULT_MAX_DEPTH, QueueChange, QueuePolicy, QueueStats
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry

JOB = Job(
    "job_1", "acme", "chat", "echo", "{}", DEFAULT_OPTIONS, Priority.normal, State.running, 0.0, 1, 0, 0, 0, 7, 3, 7, 1
)


@pytest.mark.parametrize("name", ["a", "chat", "gpu-1", "v1.2_x", "A" * 128])
def test_names(name: str) -> None:
    """Letters, digits, `_`, `-` and `.` name queues, tasks and tenants."""
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "{a}", "*", "é", "a\n", "'", "A" * 129])
def test_names_that_would_be_holes_are_refused(name: str) -> None:
    """Anything else raises InvalidRequest, which names what was to be named."""
    with pytest.raises(InvalidRequest) as refusal:
        check_name("queue", name)
    assert refusal.value.param == "queue"


@pytest.mark.parametrize(
    ("attempt", "crashes", "spent"), [(1, 0, False), (2, 0, True), (2, 1, False), (3, 1, True), (4, 3, False)]
)
def test_crashes_do_not_spend_retries(attempt: int, crashes: int, spent: bool) -> None:
    """Attempts that ended by the death of their worker do not count against `max_attempts`."""
    options = JobOptions(retry=Retry(max_attempts=2))
    job = msgspec.structs.replace(JOB, options=options, attempt=attempt, crashes=crashes)
    assert job.attempts_spent is spent


def test_the_newest_event_is_the_one_before_the_next() -> None:
    """A row's last cursor is one before the id that the next event will get."""
    assert JOB.last_cursor == Cursor(7, 2)


@pytest.mark.parametrize(("previous", "now", "expected"), [(0, 500, 500), (500, 500, 501), (900, 500, 901)])
def test_epochs_only_rise(previous: int, now: int, expected: int) -> None:
    """An epoch is the engine's time, or one above the last when the clock has not moved on, or back."""
    assert next_epoch(previous, now) == expected


def test_an_assignment_is_of_its_leases_job() -> None:
    """The job's id is the lease's."""
    held = Assignment(Lease("job_1", 7, "t"), "acme", "chat", "echo", "{}", 1, 0, 1, 0, 0, DEFAULT_OPTIONS)
    assert held.job_id == "job_1"


def test_job_ids_sort_by_time() -> None:
    """An id is its prefix, 48 bits of time and 80 of chance, in hex."""
    early, late = job_id(1_700_000_000_000, b"\xff" * 10), job_id(1_700_000_000_001, b"\x00" * 10)
    assert early == "job_018bcfe56800" + "ff" * 10
    assert early < late


def test_a_lease_token_has_96_bits() -> None:
    """As many as the randomness gives, as 24 hex digits."""
    assert lease_token(lambda count: bytes(range(count))) == "000102030405060708090a0b"


@pytest.mark.parametrize(
    "fields",
    [
        {"max_depth": 0},
        {"max_depth_per_tenant": 0},
        {"max_depth_per_tenant": -1},
        {"weights": {"a": 0.0}},
        {"weights": {"a": -1.0}},
        {"weights": {"a": 1e6}},
        {"weights": {"a": float("nan")}},
    ],
)
def test_a_policy_out_of_range_is_refused(fields: dict[str, object]) -> None:
    """A queue that could hold nothing, and a share that is none, raise ValueError; in a change too."""
    with pytest.raises(ValueError, match="must be"):
        QueuePolicy("chat", **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be"):
        QueueChange("chat", **fields).applied_to(QueuePolicy("chat"))  # type: ignore[arg-type]


def test_a_change_changes_what_it_names() -> None:
    """What a change leaves out stays; None is a value, and means no limit."""
    policy = QueuePolicy("chat", 5, 2, {"a": 2.0}, True)
    assert QueueChange("chat").applied_to(policy) == policy
    assert QueueChange("chat", max_depth_per_tenant=None).applied_to(policy).max_depth_per_tenant is None
    changed = QueueChange("chat", max_depth=9, paused=False, weights={}).applied_to(policy)
    assert changed == QueuePolicy("chat", 9, 2, {}, False)


def test_a_queue_is_wide_unless_told() -> None:
    """A new queue takes many jobs, without a limit of a tenant's own."""
    assert QueuePolicy("chat") == QueuePolicy("chat", DEFAULT_MAX_DEPTH, None, {}, False)


def test_waiting_is_queued_and_scheduled() -> None:
    """Depth counts both."""
    assert QueueStats("chat", queued=3, scheduled=4, running=9).waiting == 7


def test_the_systems_clocks_go_on() -> None:
    """The wall clock is in milliseconds of this century, and the monotonic one never steps back."""
    clock = SystemClock()
    first, second = clock.monotonic_s(), clock.monotonic_s()
    assert first <= second
    assert 1_700_000_000_000 < clock.now_ms() < 5_000_000_000_000
