"""Whether a submit's webhook may be told, as far as its URL can tell. Its sender has the last word, at the address."""

from __future__ import annotations

from functools import lru_cache

from ropeway.domain.job import NewJob
from ropeway.domain.targets import AllowList, target_of

__all__ = ["check_webhook"]


def check_webhook(job: NewJob, allow: tuple[str, ...]) -> None:
    """Raises InvalidRequest for a webhook that is not public https, nor allowed by the gateway's `webhook_allow`."""
    hook = job.options.webhook
    if hook is not None:
        target_of(hook.url, _list_of(allow))


@lru_cache(maxsize=16)
def _list_of(allow: tuple[str, ...]) -> AllowList:
    return AllowList(allow)
