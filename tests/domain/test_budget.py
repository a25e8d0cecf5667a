"""From what a task declares of limits to what a job of it carries."""

from __future__ import annotations

import msgspec
import pytest

from ropeway.domain.budget import Budget, declared, estimate_tokens, limited, named_limits
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import JobOptions
from ropeway.domain.limit import Limit


def keys(options: JobOptions, input_json: str = "{}", tenant: str = "acme") -> list[str]:
    return [limit.key for limit in limited(options, tenant, input_json).limits]


def test_a_budget_is_two_limits() -> None:
    """Requests and tokens a minute, a minute's worth at once; what it does not say is no limit."""
    requests, tokens = declared([Budget("openai", requests_per_min=120, tokens_per_min=6_000)])
    assert requests == Limit("openai:requests", per_s=2.0, burst=120)
    assert tokens == Limit("openai:tokens", per_s=100.0, burst=6_000, amount=0.0, measure="tokens")
    assert declared([Budget("free")]) == ()
    assert [limit.key for limit in declared([Budget("slow", requests_per_min=0.5)])] == ["slow:requests"]


def test_holes_are_filled_by_the_job() -> None:
    """Tenant, concurrency key, and any member of the input; numbers too."""
    wanted = ("{tenant}/{concurrency_key}", "u:{input.user}", "deep:{input.who.id}")
    options = JobOptions(limits=declared([Limit(key, 1) for key in wanted]), concurrency_key="a")
    assert keys(options, '{"user":"ann","who":{"id":7}}') == ["acme/a", "u:ann", "deep:7"]


@pytest.mark.parametrize("input_json", ["{}", "[]", "not json", '{"user":null}', '{"user":true}', '{"user":[1]}'])
def test_a_limit_that_wants_what_is_not_there_is_none_of_the_jobs(input_json: str) -> None:
    """The other limits are."""
    options = JobOptions(limits=declared([Limit("u:{input.user}", 1), Limit("c:{concurrency_key}", 1), Limit("k", 1)]))
    assert keys(options, input_json) == ["k"]


def test_no_value_is_mistaken_for_another_key() -> None:
    """What a caller writes is quoted: it cannot name a key that is not below its own."""
    options = JobOptions(limits=declared([Limit("u:{input.user}", 1)]))
    assert keys(options, '{"user":"a:b c/é{tenant}"}') == ["u:a%3Ab%20c%2F%C3%A9%7Btenant%7D"]


def test_tokens_are_estimated() -> None:
    """Four bytes of input are one; the answer as long as it may be, wherever the input says so, else 256."""
    assert estimate_tokens('{"text":"' + "x" * 391 + '"}') == 100 + 256
    assert estimate_tokens('{"max_tokens":50}') == 4 + 50
    assert estimate_tokens('{"request":{"max_completion_tokens":50}}') == 10 + 50
    assert estimate_tokens('{"max_tokens":-5,"request":{"max_tokens":true}}') == 11 + 256


def test_a_cost_in_tokens_is_estimated_unless_it_is_said() -> None:
    """A submit's own cost counts; either is put right later."""
    options = JobOptions(cost=0.0, cost_measure="tokens")
    assert limited(options, "acme", '{"max_tokens":50}').cost == 54.0
    assert limited(msgspec.structs.replace(options, cost=9.0), "acme", "{}").cost == 9.0
    assert limited(JobOptions(cost=2.0), "acme", "{}").cost == 2.0


def test_amounts_are_estimated_unless_they_are_said() -> None:
    """A limit may know better than the estimate."""
    limits = declared([Budget("openai", tokens_per_min=600), Limit("own", None, 1.0, 9.0, 5.0, "tokens")])
    made = limited(JobOptions(limits=limits), "acme", '{"max_tokens":50}').limits
    assert [(limit.key, limit.amount) for limit in made] == [("openai:tokens", 54.0), ("own", 5.0)]


@pytest.mark.parametrize(
    "limit",
    [Limit("{nobody}"), Limit("{input}"), Limit("{input.a b}"), Limit("t", measure="tokens"), Limit("k", 0)],
)
def test_a_declaration_that_cannot_be(limit: Limit) -> None:
    """Is refused where it is made."""
    with pytest.raises(InvalidRequest):
        declared([limit])


def test_a_job_has_so_many_limits_and_no_more() -> None:
    """Its task's and its caller's together."""
    limits = tuple(Limit(f"k{n}", 1) for n in range(8))
    with pytest.raises(InvalidRequest, match="at most 8"):
        limited(JobOptions(limits=limits), "acme", "{}", [Limit("more", 1)])


def test_which_limit_a_provider_means() -> None:
    """That of the key, those of the budget; if it does not say, all rates, or when there is none, all."""
    place, requests, tokens = (
        Limit("gpu", 1),
        Limit("openai:requests", per_s=1.0, burst=1.0),
        Limit("openai:tokens", per_s=1.0, burst=1.0),
    )
    limits = (place, requests, tokens)
    assert named_limits(limits, "gpu") == [place]
    assert named_limits(limits, "openai") == [requests, tokens]
    assert named_limits(limits, "openai:tokens") == [tokens]
    assert named_limits(limits, None) == [requests, tokens]
    assert named_limits((place,), None) == [place]
    assert named_limits(limits, "claude") == []
