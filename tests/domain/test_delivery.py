"""Deliveries' names, what they carry, and what counts as usage."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from ropeway.domain.delivery import BODY_LIMIT_BYTES, delivery_of
from ropeway.domain.instants import timestamp
from ropeway.domain.job import Job, JobOptions, NewJob, job_of
from ropeway.domain.lifecycle import State
from ropeway.domain.usage import amounts_of, day_of
from ropeway.domain.webhook import Webhook, delivery_id, parent_id

HOOK = Webhook("https://hooks.example/")


def ended(state: State = State.succeeded, hook: Webhook | None = HOOK, **fields: object) -> Job:
    options = JobOptions(webhook=hook, traceparent=fields.pop("traceparent", None))  # type: ignore[arg-type]
    row = job_of(NewJob("job_1", "acme", "chat", "echo", "{}", options=options), 1.0, 1000)
    return msgspec.structs.replace(row, state=state, finished_at_ms=2000, **fields)


def test_a_delivery_is_found_by_its_jobs_id() -> None:
    """And its job by its own: who spreads jobs keeps the two together."""
    for job_id in ("job_0199", "a-b", "x-d", "x-dd1", "-d1", ""):
        assert parent_id(job_id) == job_id
        if job_id:
            assert [parent_id(delivery_id(job_id, number)) for number in (0, 7, 31)] == [job_id] * 3


def test_a_delivery_carries_what_it_will_say() -> None:
    """The ended job, its times as the world writes them; the trace goes on."""
    made = delivery_of(ended(State.failed, error='{"code":"x","message":"y","traceback":"z"}', traceparent="00-1-2-01"))
    assert made is not None
    assert (made.id, made.tenant, made.options.traceparent) == ("job_1-d0", "acme", "00-1-2-01")
    told = msgspec.json.decode(made.input)
    assert (told["type"], told["timestamp"]) == ("job.failed", timestamp(2000))
    assert told["data"]["error"] == {"code": "x", "message": "y"}
    assert (told["data"]["created_at"], told["data"]["started_at"]) == ("1970-01-01T00:00:01.000Z", None)


def test_a_message_stays_small() -> None:
    """The output goes when the whole would be larger than a receiver likes; the rest is never cut."""
    for size, fits in ((100, True), (BODY_LIMIT_BYTES - 1000, True), (BODY_LIMIT_BYTES, False)):
        made = delivery_of(ended(output=f'"{"x" * size}"'))
        assert made is not None
        assert ("output" in msgspec.json.decode(made.input)["data"]) is fits


def test_nobody_is_told_who_did_not_ask() -> None:
    """No webhook, or another event."""
    assert delivery_of(ended(hook=None)) is None
    assert delivery_of(ended(State.cancelled, Webhook("https://hooks.example/", ("job.failed",)))) is None


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        (None, {}),
        ("{}", {}),
        ('{"a":1,"b":0.5,"c":-2}', {"a": 1, "b": 0.5, "c": -2}),
        ('{"a":true,"b":null,"c":"1","d":[1],"e":1e16}', {}),
        ('{"a b":1,"1a":1,"":1,"é":1,"a.b-c_d":1}', {"a.b-c_d": 1}),
        ("[1]", {}),
        ("nonsense", {}),
        ('{"' + "a" * 65 + '":1}', {}),
    ],
)
def test_only_plain_numbers_are_usage(told: str | None, counted: dict[str, float]) -> None:
    """Whatever else a task tells is for the job's own readers."""
    assert amounts_of(told) == counted


def test_one_attempt_adds_so_many_names_and_no_more() -> None:
    """What tasks tell is not to fill the store."""
    assert len(amounts_of(msgspec.json.encode({f"n{n}": n for n in range(100)}).decode())) == 16


def test_a_day_is_utc() -> None:
    """From midnight to midnight there."""
    assert [day_of(ms) for ms in (0, 86_399_999, 86_400_000)] == [date(1970, 1, 1), date(1970, 1, 1), date(1970, 1, 2)]
