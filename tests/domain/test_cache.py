"""The key of a submit's content: what counts in it, and who is served by a job that holds it."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.cache import Cache, content_key, home_of, keyed_id, serves
from ropeway.domain.change import shared, stopped
from ropeway.domain.job import CacheKey, Job, NewJob, job_of
from ropeway.domain.lifecycle import State
from ropeway.domain.rank import Priority
from ropeway.domain.webhook import delivery_id, parent_id

INPUT = '{"image":{"$file":"file_00000000000000000000000000000001"},"size":{"w":1,"h":2},"user":"ada"}'
FILE = "file_00000000000000000000000000000001"


def test_spacing_and_order_do_not_count() -> None:
    """Inputs that are the same JSON have one key; a number, a type or a member more is another input."""
    same = {content_key("t", Cache(), text) for text in ('{"a":1,"b":{"c":2,"d":3}}', '{"b": {"d":3, "c": 2},"a" :1}')}
    assert len(same) == 1
    others = ('{"a":2,"b":{"c":2}}', '{"a":"1","b":{"c":2,"d":3}}', '{"a":1,"b":{"c":2,"d":3},"e":0}', "[]", "0")
    assert len(same | {content_key("t", Cache(), text) for text in others}) == 1 + len(others)


def test_task_and_version_count() -> None:
    """Another task has keys of its own, and so has another version; the time to live has no part in it."""
    keys = [content_key(*of, "{}") for of in (("t", Cache()), ("u", Cache()), ("t", Cache(version="2")))]
    assert len(set(keys)) == 3
    assert content_key("t", Cache(ttl_s=5), "{}") == keys[0]


def test_only_what_is_named_counts() -> None:
    """`fields` picks members, `ignore` leaves some out; paths go into objects; what is not there does not count."""

    def key(cache: Cache, text: str = INPUT) -> str:
        return content_key("t", cache, text)

    bob = INPUT.replace("ada", "bob")
    wide = INPUT.replace('"w":1', '"w":9')
    assert key(Cache()) != key(Cache(), bob)
    assert key(Cache(ignore=("user",))) == key(Cache(ignore=("user",)), bob)
    assert key(Cache(fields=("image", "size.h"))) == key(Cache(fields=("image", "size.h")), wide)
    assert key(Cache(fields=("size",))) != key(Cache(fields=("size",)), wide)
    assert key(Cache(fields=("size",), ignore=("size.w",))) == key(Cache(fields=("size",), ignore=("size.w",)), wide)
    missing = Cache(fields=("none.there", "size.w.deeper"))
    assert key(missing) == key(missing, bob) != key(Cache(fields=("user",)))
    assert key(Cache(fields=("a",)), '{"a":null}') != key(Cache(fields=("a",)), "{}")


def test_files_count_by_what_they_hold() -> None:
    """Wherever they stand in the input."""
    other = INPUT.replace(FILE, FILE.replace("1", "2"))
    assert content_key("t", Cache(), INPUT, {FILE: "sha"}) == content_key(
        "t", Cache(), other, {FILE.replace("1", "2"): "sha"}
    )
    assert content_key("t", Cache(), INPUT, {FILE: "sha"}) != content_key("t", Cache(), INPUT, {FILE: "shb"})
    nested = f'{{"all":[{{"one":{{"$file":"{FILE}"}}}}]}}'
    assert content_key("t", Cache(), nested, {FILE: "sha"}) != content_key("t", Cache(), nested, {FILE: "shb"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl_s": 0},
        {"ttl_s": -1},
        {"ttl_s": float("inf")},
        {"ttl_s": float("nan")},
        {"fields": ("",)},
        {"ignore": ("a..b",)},
        {"fields": ("a",) * 65},
        {"version": "v" * 129},
    ],
)
def test_a_declaration_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    """When it is made."""
    with pytest.raises(ValueError, match=r"cache|member"):
        Cache(**wrong)  # type: ignore[arg-type]


def test_ids_of_a_key_have_one_home() -> None:
    """Jobs of a key, and the deliveries of their ends, lie where the key does; other ids stand for themselves."""
    key = content_key("t", Cache(), "{}")
    first, second = keyed_id("job_00ff", key), keyed_id("job_abcd", key)
    assert first != second
    assert home_of(first) == home_of(second) == home_of(parent_id(delivery_id(first, 3)))
    for plain in ("job_00ff", "job_k", "bunkk", "k0123456", "jobk01234567x"):
        assert home_of(plain) == plain


def job(state: State = State.queued, **changes: object) -> Job:
    made = job_of(NewJob("job_1", "a", "q", "t", "{}", cache=CacheKey("k", 1000)), 1.0, 0)
    return msgspec.structs.replace(made, state=state, **changes)


def asks(ttl_ms: int = 1000, *, fresh: bool = False, priority: Priority = Priority.normal) -> NewJob:
    return NewJob("job_2", "a", "q", "t", "{}", priority, cache=CacheKey("k", ttl_ms, fresh))


@pytest.mark.parametrize(
    ("known", "new", "served"),
    [
        (job(State.queued), asks(), True),
        (job(State.scheduled), asks(), True),
        (job(State.running), asks(priority=Priority.high), True),
        (job(State.queued), asks(priority=Priority.high), False),
        (job(State.queued), asks(priority=Priority.low), True),
        (job(State.running, cancel_requested_at_ms=1), asks(), False),
        (job(State.running), asks(fresh=True), False),
        (job(State.failed, finished_at_ms=4000), asks(), False),
        (job(State.cancelled, finished_at_ms=4000), asks(), False),
        (job(State.succeeded, finished_at_ms=4001), asks(), True),
        (job(State.succeeded, finished_at_ms=4000), asks(), False),
        (job(State.succeeded, finished_at_ms=4000), asks(9000), False),
        (job(State.succeeded, finished_at_ms=4500), asks(500), False),
        (job(State.succeeded, finished_at_ms=4501), asks(500), True),
        (job(State.succeeded, finished_at_ms=4501), asks(fresh=True), False),
    ],
)
def test_who_is_served(known: Job, new: NewJob, served: bool) -> None:
    """By what lives and is not asked to stop, and by what succeeded not too long ago for either."""
    assert serves(known, 1000, new, 5000) is served


def test_who_asks_for_nothing_is_not_served() -> None:
    """A submit without a key has its own job."""
    assert not serves(job(), 1000, NewJob("job_2", "a", "q", "t", "{}"), 0)


def test_only_the_last_sharers_are_known() -> None:
    """Eight words are kept: enough for what is sent again, and no row grows with its crowd."""
    crowd = job(State.running)
    for n in range(20):
        change = shared(crowd, f"job_{n}")
        assert change is not None
        crowd = change.job
    assert (crowd.joined, len((crowd.sharers or "").split())) == (20, 8)
    assert shared(crowd, "job_19") is None
    left = stopped(crowd, None, 1, "word")
    assert left is not None
    assert (left.job.joined, left.job.sharers) == (19, " ".join([f"job_{n}" for n in range(13, 20)] + ["word"]))
    assert stopped(left.job, None, 1, "word") is None
