"""From a request to a new job: defaults, changes, limits; and inputs against announced schemas."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ropeway.client.checking import SchemaCheck
from ropeway.client.submission import canonical_fingerprint, new_job
from ropeway.client.wire import JobRequest, RetryRequest, request_json
from ropeway.domain.errors import InputInvalid, InvalidRequest
from ropeway.domain.job import JobOptions, NewJob
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.worker import TaskCard

CARD = TaskCard(
    "crops.analyze",
    queue="gpu",
    options=JobOptions(timeout_s=60, retry=Retry(max_attempts=5), metadata={"team": "a"}, tags=("crops",)),
    priority=Priority.low,
)


def made(**fields: Any) -> NewJob:
    return new_job(CARD, JobRequest("crops.analyze", **fields), id="job_1", tenant="t")


# -- the job


def test_what_a_request_leaves_out_is_as_the_task_declares() -> None:
    """A bare request is the card's own defaults, and shares its options: the path of every submit."""
    job = made(input=msgspec.Raw(b'{"a": 1}'))
    assert (job.queue, job.priority, job.input, job.delay_ms) == ("gpu", Priority.low, '{"a": 1}', 0)
    assert job.options is CARD.options


def test_what_a_request_says_goes_before_the_task() -> None:
    """Each field changes its own option and no other."""
    times = {"timeout": 5, "queue_timeout": 7, "first_output_timeout": 3, "output_timeout": 4, "retention": 0}
    job = made(queue="cpu", priority="high", delay=1.5, cost=2, **times)
    assert (job.queue, job.priority, job.delay_ms) == ("cpu", Priority.high, 1500)
    changed = {f"{name}_s": value for name, value in times.items()}
    assert job.options == msgspec.structs.replace(CARD.options, cost=2, **changed)


def test_a_task_that_needs_labels_keeps_its_queue() -> None:
    """Only the workers of its own queue have what it needs; to name that queue is no change."""
    needy = msgspec.structs.replace(CARD, needs=("device=gpu",))
    assert new_job(needy, JobRequest("crops.analyze", queue="gpu"), id="job_1", tenant="t").queue == "gpu"
    with pytest.raises(InvalidRequest, match="needs workers with device=gpu: those of its own queue, 'gpu'") as refused:
        new_job(needy, JobRequest("crops.analyze", queue="cpu"), id="job_1", tenant="t")
    assert refused.value.param == "queue"


def test_a_retry_policy_is_changed_field_by_field() -> None:
    """What the request does not say of the policy stays the task's."""
    assert made(retry=RetryRequest(base_s=3)).options.retry == Retry(max_attempts=5, base_s=3)


def test_tags_and_metadata_are_added_to_the_tasks_own() -> None:
    """A caller adds and overrides; it does not wipe what the task marks its jobs with."""
    options = made(tags=("web", "crops"), metadata={"user": "7"}).options
    assert (options.tags, options.metadata) == (("crops", "web"), {"team": "a", "user": "7"})


def test_jobs_to_wait_for_are_options() -> None:
    """Each once, in the order in which they are told; what becomes of the job may be told for outputs alone."""
    assert made(after=("b", "a", "b")).options == msgspec.structs.replace(CARD.options, after=("b", "a"))
    assert made(after_failure="run").options == msgspec.structs.replace(CARD.options, after_failure="run")
    assert len(made(after=tuple(str(n) for n in range(1_000)) * 2).options.after) == 1_000


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("queue", "a b"),
        ("queue", ""),
        ("queue", "x" * 129),
        ("priority", "urgent"),
        ("delay", -1),
        ("delay", float("nan")),
        ("delay", float("inf")),
        ("delay", 400 * 86_400),
        ("timeout", 0),
        ("queue_timeout", 0),
        ("first_output_timeout", 0),
        ("output_timeout", float("nan")),
        ("retention", -1),
        ("retry", RetryRequest(max_attempts=0)),
        ("retry", RetryRequest(base_s=10, cap_s=1)),
        ("cost", 0),
        ("cost", 1e12),
        ("concurrency_key", ""),
        ("concurrency_key", "a\nb"),
        ("on_disconnect", "panic"),
        ("after", ("",)),
        ("after", ("j" * 256,)),
        ("after", ("a\nb",)),
        ("after", tuple(str(n) for n in range(1_001))),
        ("after_failure", "shrug"),
        ("tags", ("",)),
        ("tags", ("a\0b",)),
        ("tags", tuple(str(n) for n in range(33))),
        ("metadata", {"": "x"}),
        ("metadata", {"k": "x" * 3000}),
        ("metadata", {str(n): "x" for n in range(65)}),
    ],
)
def test_what_is_out_of_its_limits_is_refused_by_name(param: str, value: Any) -> None:
    """`param` is the field, so that a form can show the message where it belongs."""
    with pytest.raises(InvalidRequest) as caught:
        made(**{param: value})
    assert caught.value.param == param


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_an_idempotency_key_has_1_to_255_characters(key: str) -> None:
    """Neither nothing nor a document is a key."""
    with pytest.raises(InvalidRequest, match="idempotency"):
        new_job(CARD, JobRequest("crops.analyze"), id="job_1", tenant="t", idempotency_key=key)


def test_an_input_that_is_not_utf8_is_refused() -> None:
    """Raw JSON passes a decoder unread, so its bytes are checked here."""
    with pytest.raises(InputInvalid):
        made(input=msgspec.Raw(b'"\xff"'))


# -- the input

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "odd~/name": {"type": "string", "maxLength": 3},
        "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Item"}]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "required": ["n"],
    "additionalProperties": False,
    "$defs": {"Item": {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}},
}
CHECK = SchemaCheck(TaskCard("t", input_schema=json.dumps(SCHEMA)))


def faults(text: bytes) -> dict[str, str]:
    with pytest.raises(InputInvalid) as caught:
        CHECK.check(text)
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def test_input_that_fits_passes() -> None:
    """Nothing is raised, and nothing is given back: the text itself goes on."""
    CHECK.check(b'{"n": 1, "items": [{"x": 1}], "maybe": null, "either": "s"}')


@pytest.mark.parametrize(
    ("text", "pointer", "detail"),
    [
        (b"{}", "/n", "is required"),
        (b'{"n": "x"}', "/n", 'is not of type "integer"'),
        (b'{"n": 1, "new": 2}', "/new", "is not a field of this task"),
        (b'{"n": 1, "odd~/name": "long"}', "/odd~0~1name", "is longer than 3 characters"),
        (b'{"n": 1, "items": [{"x": 1}, {"x": 3}]}', "/items/1/x", "is not one of 1 or 2"),
        (b'{"n": 1, "maybe": {}}', "/maybe/x", "is required"),
        (b'{"n": 1, "either": []}', "/either", "fits none of the types allowed here"),
        (b"null", "", 'is not of type "object"'),
    ],
)
def test_a_fault_is_named_where_it_is(text: bytes, pointer: str, detail: str) -> None:
    """Pointers are RFC 6901, down to the member that is wrong, missing or too many."""
    assert faults(text) == {pointer: detail}


def test_every_fault_is_named_up_to_a_limit() -> None:
    """One round trip mends all of them, unless they are absurdly many."""
    assert set(faults(b'{"a": 1, "b": 2}')) == {"/n", "/a", "/b"}
    many = {f"f{n}": n for n in range(500)}
    assert len(faults(json.dumps(many).encode())) == 20


def test_what_was_sent_stays_out_of_the_message() -> None:
    """Messages land in logs: they name the place and the rule, not the value."""
    assert "hunter2" not in str(faults(b'{"n": "hunter2"}'))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'{"n": NaN}', b'{"n": 01}', b'{"n": 1e999}', b'{"n": "\xff"}', b'{"n": "\\ud800"}', b'{"n": 1} x'],
)
def test_what_is_not_json_is_an_invalid_input(text: bytes) -> None:
    """Broken text is the caller's fault with a name, never an error of ours."""
    assert list(faults(text)) == [""]


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_what_is_nested_too_deeply_is_an_invalid_input(depth: int) -> None:
    """Whatever limit it meets first, it is refused and nothing breaks."""
    assert faults(b'{"n": ' + b"[" * depth + b"]" * depth + b"}")


def test_a_task_without_a_schema_takes_any_json() -> None:
    """An announced `{}` allows everything that is JSON, and nothing that is not."""
    check = SchemaCheck(TaskCard("t"))
    check.check(b"[1, null]")
    with pytest.raises(InputInvalid):
        check.check(b"[1, nil]")


@pytest.mark.parametrize("schema", ['{"type": "strin"}', '{"$ref": "http://schemas.invalid/a"}'])
def test_a_schema_that_does_not_compile_is_refused(schema: str) -> None:
    """A broken announcement is told by the task's name; nothing is fetched to make it whole."""
    with pytest.raises(InvalidRequest, match="'t'"):
        SchemaCheck(TaskCard("t", input_schema=schema))


# -- fingerprints


def test_equal_json_has_one_fingerprint() -> None:
    """Spacing and the order of members do not make another body; values and the order of items do."""
    body = canonical_fingerprint(b'{"a": [1, 2], "b": {"x": 1, "y": "\xc3\xa9"}}')
    assert canonical_fingerprint(b'{"b":{"y":"\\u00e9","x":1},"a":[1,2]}') == body
    assert canonical_fingerprint({"a": [1, 2], "b": {"x": 1, "y": "é"}}) == body
    assert canonical_fingerprint(b'{"a": [2, 1], "b": {"x": 1, "y": "\xc3\xa9"}}') != body
    assert len(body) == 32


@pytest.mark.parametrize("body", [b"", b"{", b'"\xff"', b"[" * 100_000])
def test_a_body_that_is_not_json_has_no_fingerprint(body: bytes) -> None:
    """It is an invalid request."""
    with pytest.raises(InvalidRequest):
        canonical_fingerprint(body)


def test_a_request_is_written_as_a_person_would() -> None:
    """What it does not say is not written, so that a client and a curl of the same meaning have one fingerprint."""
    request = JobRequest("t", msgspec.Raw(b'{"n": 1}'), tags=("a",), retry=RetryRequest(max_attempts=2))
    assert json.loads(request_json(request)) == {
        "task": "t",
        "input": {"n": 1},
        "tags": ["a"],
        "retry": {"max_attempts": 2},
    }
    assert msgspec.json.decode(request_json(request), type=JobRequest) == request


def test_a_nought_that_means_something_is_written() -> None:
    """No retention is not the task's retention."""
    assert json.loads(request_json(JobRequest("t", retention=0, cost=0, delay=0))) == {
        "task": "t",
        "input": {},
        "retention": 0,
        "cost": 0,
    }
