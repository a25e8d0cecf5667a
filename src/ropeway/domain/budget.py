"""What a task declares of limits, and what a job of it then carries: keys filled in, amounts estimated.

    limits=[Limit("user:{input.user}", max_running=2), Budget("openai", requests_per_min=500, tokens_per_min=9e4)]

In a key `{tenant}`, `{concurrency_key}` and `{input.name}` stand for what the job has there; a limit whose key wants
what a job has not is none of that job's. Tokens are estimated before they are known: four bytes of input are about
one, and an answer is as long as the input's `max_tokens` lets it be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import JobOptions
from ropeway.domain.limit import LIMITS_OF_A_JOB, TOKENS, Limit, check_limits

__all__ = ["ESTIMATED", "Budget", "declared", "estimate_tokens", "limited", "named_limits"]

ESTIMATED = 0.0
"""The amount, or cost, of what is measured in tokens and estimated for each job."""

BYTES_A_TOKEN = 4  # of English and of code; of other languages fewer, which the usage puts right
ANSWER_TOKENS = 256  # of an answer whose length nothing bounds
_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_HOLE = re.compile(r"\{([^{}]*)\}")
_HOLES = re.compile(r"tenant|concurrency_key|input(\.[A-Za-z_][A-Za-z0-9_]*){1,8}")


class Budget(msgspec.Struct, frozen=True):
    """What a provider lets an account do: requests and tokens a minute. One minute's worth may come at once.

    All tasks that name it share it, on all workers. Its keys are `<name>:requests` and `<name>:tokens`.
    """

    name: str
    requests_per_min: float | None = None
    tokens_per_min: float | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """As limits of a task."""
        requests, tokens = self.requests_per_min, self.tokens_per_min
        both = (
            requests and Limit(f"{self.name}:requests", per_s=requests / 60, burst=max(requests, 1.0)),
            tokens and Limit(f"{self.name}:tokens", None, tokens / 60, max(tokens, 1.0), ESTIMATED, TOKENS),
        )
        return tuple(limit for limit in both if limit)


def declared(limits: Iterable[Limit | Budget]) -> tuple[Limit, ...]:
    """A task's limits. Raises InvalidRequest for those that cannot be."""
    each = [limit for given in limits for limit in (given.limits if isinstance(given, Budget) else (given,))]
    for limit in each:
        for hole in _HOLE.findall(limit.key):
            if not _HOLES.fullmatch(hole):
                raise InvalidRequest(
                    f"limit {limit.key}: {{{hole}}} is none of {{tenant}}, {{concurrency_key}}, {{input.name}}",
                    param="limits",
                )
        if limit.measure == TOKENS and limit.max_running is None and limit.per_s is None:
            raise InvalidRequest(f"limit {limit.key} measures tokens and has no rate", param="limits")
    check_limits([_filled(limit, limit.key, limit.amount or 1.0) for limit in each])
    return tuple(each)


def limited(options: JobOptions, tenant: str, input_json: str, more: Sequence[Limit] = ()) -> JobOptions:
    """The options of a job whose task declares limits or a cost in tokens. Raises InvalidRequest for too many.

    `more`: limits that come from elsewhere, such as the tenant's own.
    """
    if not (options.limits or more or options.cost_measure):
        return options
    values = _Values(tenant, options.concurrency_key, input_json)
    found = (values.limit(limit) for limit in (*options.limits, *more))
    limits = tuple(limit for limit in found if limit is not None)
    if len(limits) > LIMITS_OF_A_JOB:
        raise InvalidRequest(f"a job has at most {LIMITS_OF_A_JOB} limits, not {len(limits)}", param="limits")
    cost = options.cost
    if options.cost_measure == TOKENS and cost == ESTIMATED:
        cost = values.tokens
    return msgspec.structs.replace(options, limits=limits, cost=cost)


def named_limits(limits: Sequence[Limit], name: str | None) -> list[Limit]:
    """Those of a job's limits that a provider means: of this key, or of this budget; None: of all that have a rate."""
    if name is None:
        return [limit for limit in limits if limit.per_s is not None] or list(limits)
    return [limit for limit in limits if limit.key == name or limit.key.rpartition(":")[0] == name]


def estimate_tokens(input_json: str) -> float:
    """About the tokens that a job with this input takes, of input and output together; at least 1."""
    return _Values("", None, input_json).tokens


class _Values:
    """What stands in a job for the holes of its limits' keys. The input is read when it is first asked for."""

    def __init__(self, tenant: str, concurrency_key: str | None, input_json: str) -> None:
        self._own = {"tenant": tenant, "concurrency_key": concurrency_key}
        self._json = input_json
        self._input: Any = msgspec.UNSET

    @property
    def tokens(self) -> float:
        return float(max(len(self._json.encode()) // BYTES_A_TOKEN, 1) + self._answer_tokens())

    def limit(self, limit: Limit) -> Limit | None:
        """The limit with its key filled in and its amount estimated; None when the job lacks what the key wants."""
        filled: list[str] = []
        for place, text in enumerate(_HOLE.split(limit.key)):
            value = self._value(text) if place % 2 else text
            if value is None:
                return None
            filled.append(value)
        amount = self.tokens if limit.measure == TOKENS and limit.amount == ESTIMATED else limit.amount
        return _filled(limit, "".join(filled)[:255], amount)

    def _value(self, hole: str) -> str | None:
        value: Any = self._own[hole] if hole in self._own else self._member(hole.split(".")[1:])
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return quote(str(value), safe="@+,;=!~") or None  # so that no value is mistaken for another's key

    def _member(self, path: Sequence[str]) -> Any:
        found = self._read()
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def _answer_tokens(self) -> int:
        """What the input bounds the answer to: chat tasks have their request as a member."""
        found = self._read()
        for place in (found, found.get("request") if isinstance(found, dict) else None):
            for name in _BOUNDS:
                bound = place.get(name) if isinstance(place, dict) else None
                if isinstance(bound, int) and not isinstance(bound, bool) and 0 < bound <= 10**7:
                    return bound
        return ANSWER_TOKENS

    def _read(self) -> Any:
        if self._input is msgspec.UNSET:
            try:
                self._input = msgspec.json.decode(self._json)
            except (msgspec.MsgspecError, RecursionError):  # it is refused elsewhere, with what is wrong
                self._input = None
        return self._input


def _filled(limit: Limit, key: str, amount: float) -> Limit:
    return Limit(key, limit.max_running, limit.per_s, limit.burst, amount, limit.measure)
