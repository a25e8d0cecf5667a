"""When a failed attempt is tried again: exponential backoff with full jitter, or a schedule."""

from __future__ import annotations

import msgspec

__all__ = ["Retry", "backoff_s"]

SCHEDULE_JITTER = 0.1


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A retry policy.

    Attributes:
        max_attempts: attempts in all, the first included; 1 means no retry.
        base_s: the ceiling of the first wait, in seconds.
        factor: what each further ceiling is multiplied by.
        cap_s: no ceiling is above this many seconds.
        schedule_s: instead of all that, the waits themselves, in seconds; the last one stands for all after it. Each
            gets up to a tenth longer, so that what failed together is not tried together.
    """

    max_attempts: int = 3
    base_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 300.0
    schedule_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1000:
            raise ValueError(f"max_attempts must be 1 to 1000, not {self.max_attempts}")
        if not (0 <= self.base_s <= self.cap_s <= 30 * 86_400):
            raise ValueError("base_s and cap_s must be 0 <= base_s <= cap_s <= 2592000 seconds")
        if not 1 <= self.factor <= 100:
            raise ValueError(f"factor must be 1 to 100, not {self.factor}")
        if len(self.schedule_s) > 1000 or any(not 0 <= wait_s <= 30 * 86_400 for wait_s in self.schedule_s):
            raise ValueError("schedule_s is at most 1000 waits of 0 to 2592000 seconds")


def backoff_s(policy: Retry, attempt: int, jitter: float, retry_after_s: float | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    `jitter` is uniform in [0, 1). A provider's own `retry_after_s` is a floor: asked to wait, we wait.
    Source: "full jitter" in the AWS Architecture Blog's "Exponential Backoff And Jitter".
    """
    if policy.schedule_s:
        wait = policy.schedule_s[min(attempt, len(policy.schedule_s)) - 1] * (1 + SCHEDULE_JITTER * jitter)
    else:
        exponent = min(attempt - 1, 64)  # beyond this any factor above 1 has long met the cap
        wait = min(policy.cap_s, policy.base_s * policy.factor**exponent) * jitter
    return wait if retry_after_s is None else max(retry_after_s, wait)
