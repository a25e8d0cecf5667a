"""What a provider's refusal comes to: whether another try may help, when, and what the job's owner is told.

    400 413 422            Fail, input_invalid            the request is at fault, and stays so
    401 403                Fail, provider_error           our key is: nothing of the answer is told
    408 409 425 5xx, cut   tried again, provider_error
    429                    tried again, provider_rate_limited; Fail when the account's quota is spent
    others                 Fail, provider_error

A provider is a stranger: of what it says at most 1 kB is told, without our key and without anything unprintable, and
none of its headers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from ropeway.domain.errors import Fail, RetryAfter, TaskFault

__all__ = [
    "ERROR_LIMIT_BYTES",
    "RATE_LIMITED",
    "Refused",
    "fault_of",
    "in_stream_refusal",
    "refusal",
    "remaining",
    "retry_after_s",
]

RATE_LIMITED = "provider_rate_limited"

ERROR_LIMIT_BYTES = 1_024
RETRY_AFTER_LIMIT_S = (
    3_600.0  # asked to wait for longer, we ask again after an hour: a stranger parks no job for a year
)

_OURS = frozenset({400, 413, 422})
_KEY = frozenset({401, 403})
_AGAIN = frozenset({408, 409, 425, 429})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_LIMITED = frozenset({"rate_limit_exceeded", "rate_limit_error", "rate_limited", "429"})


class Refused(Exception):
    """A call failed before it had any answer.

    `fault` is what the job is told when there is no other try; `again` tells whether one may help, not before
    `after_s` seconds from now when the provider said so; `limited` that it refuses everybody with our key meanwhile.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str = "provider_error",
        again: bool = True,
        after_s: float | None = None,
        limited: bool = False,
    ) -> None:
        super().__init__(detail)
        self.detail, self.code, self.again, self.after_s, self.limited = detail, code, again, after_s, limited


def refusal(status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Refused:
    """What an answer with a status other than 200 comes to."""
    if status in _KEY:
        return Refused(f"the provider does not accept our key ({status})", again=False)
    said, code, kind = _told(body)
    detail = f"the provider answered {status}" + (f": {said}" if said else "")
    if status in _OURS:
        return Refused(detail, code="input_invalid", again=False)
    after_s = retry_after_s(headers, now_ms)
    if status == 429:
        is_spent = bool(_QUOTA & {code, kind})
        return Refused(detail, code=RATE_LIMITED, again=not is_spent, after_s=after_s, limited=not is_spent)
    return Refused(detail, again=status in _AGAIN or status >= 500, after_s=after_s)


def in_stream_refusal(error: object) -> Refused:
    """What an error that came as an event of a stream comes to."""
    said, code, kind = _facts(error)
    is_limited = bool(_LIMITED & {code, kind})
    return Refused(
        f"the provider broke off: {said or 'it did not say why'}",
        code=RATE_LIMITED if is_limited else "provider_error",
        limited=is_limited,
    )


def fault_of(refused: Refused) -> TaskFault:
    """What the task raises for it. A retry is then the job's own, by its policy."""
    if not refused.again:
        return Fail(refused.detail, code=refused.code)
    return RetryAfter(refused.after_s or 0.0, refused.detail, code=refused.code)


def retry_after_s(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds to wait, as `retry-after-ms` or `Retry-After` (seconds, or an HTTP date) have it; None for nonsense.

    A date is read against the provider's own clock, when it tells that: ours may go wrong.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if len(text) <= 20 and text.replace(".", "", 1).isdecimal() and text.isascii():
            return min(float(text) * unit_s, RETRY_AFTER_LIMIT_S)
    at_s = _date_s(headers.get("retry-after"))
    if at_s is None:
        return None
    now_s = _date_s(headers.get("date"))
    return min(max(at_s - (now_ms / 1000 if now_s is None else now_s), 0.0), RETRY_AFTER_LIMIT_S)


def remaining(headers: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """What is left, of `requests` and of `tokens`, as OpenAI's headers have it, and those of Anthropic."""
    for what in ("requests", "tokens"):
        for name in (f"x-ratelimit-remaining-{what}", f"anthropic-ratelimit-{what}-remaining"):
            text = headers.get(name, "").strip()
            if text.isascii() and text.isdecimal() and len(text) <= 15:
                yield what, float(text)


def _date_s(text: str | None) -> float | None:
    if not text or len(text) > 64:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _told(body: bytes) -> tuple[str, str, str]:
    """What the body says: OpenAI's error object when it is one, else its beginning."""
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _printable(body.decode("utf-8", "replace")), "", ""
    return _facts(parsed.get("error", parsed) if isinstance(parsed, dict) else parsed)


def _facts(error: object) -> tuple[str, str, str]:
    if not isinstance(error, dict):
        return _printable(error if isinstance(error, str) else ""), "", ""
    said: Any = error.get("message") or error.get("detail") or ""
    return _printable(said if isinstance(said, str) else ""), str(error.get("code")), str(error.get("type"))


def _printable(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:ERROR_LIMIT_BYTES])
    return " ".join(shown.encode("utf-8", "ignore")[:ERROR_LIMIT_BYTES].decode("utf-8", "ignore").split())
