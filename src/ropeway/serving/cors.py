"""What a page of another origin needs to call this gateway: the CORS protocol (WHATWG Fetch), for allowed ones alone.

Without these headers a browser sends nothing but the simplest requests, and keeps the answers from the page. The guard
has refused all other origins before. No cookie is ever read here, so credentials are not allowed for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ropeway.serving.replies import Reply, Scope, told_along

__all__ = ["Cors"]

_PREFLIGHT_AGE_S = 600
_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_ASKED = (
    b"authorization, content-type, idempotency-key, if-none-match, last-event-id, prefer, range, repr-digest, "
    b"traceparent"
)
_TOLD = (
    b"cache-status, content-disposition, etag, idempotency-replayed, location, preference-applied, ratelimit, "
    b"ratelimit-policy, retry-after, server-timing, www-authenticate, x-job-id, x-request-id, x-should-retry"
)
_VARY = (b"vary", b"origin")


class Cors:
    """Answers browsers on behalf of the pages of these origins."""

    def __init__(self, origins: Collection[str] | None) -> None:
        """None: that is the affair of the application that this gateway is mounted in."""
        self._origins = frozenset(origin.lower().encode() for origin in origins or ())

    def welcome(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Have the answer tell a browser that its page may read it; the whole answer if it only asks for that."""
        if not self._origins:
            return None
        told_along(scope, _VARY)  # also to those who send none: a cache must not give them this answer
        origin = headers.get(b"origin", b"")
        if origin.lower() not in self._origins:
            return None
        told_along(scope, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _TOLD))
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        return Reply(
            204,
            headers=[
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _asked(headers)),
                (b"access-control-max-age", b"%d" % _PREFLIGHT_AGE_S),
            ],
        )


def _asked(headers: Mapping[bytes, bytes]) -> bytes:
    """The headers that may be sent; those of OpenAI's SDKs too, which send many of their own."""
    wanted = headers.get(b"access-control-request-headers", b"").lower()
    own = [name.strip() for name in wanted.split(b",") if name.strip().startswith((b"x-stainless-", b"openai-"))]
    return b", ".join((_ASKED, *own[:32]))
