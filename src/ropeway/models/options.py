"""How an upstream is called: its deadlines, its limits, and how often a call is tried."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.retry import Retry

__all__ = ["UpstreamOptions", "checked_url"]

_OWN_HEADERS = frozenset({"authorization", "host", "content-length", "content-type", "accept", "accept-encoding"})


class UpstreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one upstream. Durations are seconds.

    Attributes:
        concurrency: calls that one worker has in flight at once; what comes above it waits in the queue.
        connect_s: to have a connection. first_token_s: from the request to the first piece of an answer, or to the
            whole of one that is no stream. idle_s: between two pieces. total_s: of a whole answer; a job's own timeout
            counts besides.
        retry: how often a call is tried before its first piece, and the full jitter between the tries. After the first
            piece the failure is the job's, and is retried by the job's own policy.
        max_wait_s: a longer Retry-After is not waited for in the worker: the job goes back, to run after it.
        max_line_bytes: of one event of a stream. max_answer_bytes: of a whole answer.
        max_tokens_field: what the provider calls `max_tokens`; newer ones say `max_completion_tokens`.
        stream_usage: ask for the counts of tokens at a stream's end; some servers refuse the question.
        http2: offer HTTP/2 in the TLS handshake. It spares connections: hundreds of streams share one.
        headers: sent besides ours, for what a provider wants to know; no secrets, these are shown.
        proxy: the URL of an HTTP proxy to go through; the environment's are not looked at.
        ca_file: certificates to trust beside the system's. allow_plain_http: send a key over plain HTTP beyond the
            loopback.
    """

    concurrency: int = 200
    connect_s: float = 5.0
    first_token_s: float = 60.0
    idle_s: float = 30.0
    total_s: float = 600.0
    retry: Retry = Retry(max_attempts=4, base_s=0.5, factor=2.0, cap_s=8.0)
    max_wait_s: float = 20.0
    max_line_bytes: int = 1024**2
    max_answer_bytes: int = 32 * 1024**2
    max_tokens_field: str = "max_tokens"
    stream_usage: bool = True
    http2: bool = True
    headers: Mapping[str, str] = {}
    proxy: str | None = None
    ca_file: str | None = None
    allow_plain_http: bool = False

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError("an upstream's concurrency is at least 1")
        if min(self.connect_s, self.first_token_s, self.idle_s, self.total_s) <= 0 or self.max_wait_s < 0:
            raise ValueError("an upstream's deadlines are above 0 seconds")
        if min(self.max_line_bytes, self.max_answer_bytes) < 1024:
            raise ValueError("an upstream's limits are at least 1024 bytes")
        taken = _OWN_HEADERS & {name.lower() for name in self.headers}
        if taken:
            raise ValueError(f"header '{min(taken)}' is Ropeway's own to send")


def checked_url(base_url: str, *, has_key: bool, allow_plain_http: bool) -> str:
    """The base URL of an API, without a slash at its end: `https://api.example.com/v1`.

    Raises InvalidRequest for what is none, has a key in it, or would send one in the clear.
    """
    parts = urlsplit(base_url)
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("there is a key in the base URL: give it by key='env:NAME' or key='file:PATH'", "base_url")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidRequest(f"{base_url!r} is no base URL such as https://api.example.com/v1", "base_url")
    if has_key and parts.scheme == "http" and not (allow_plain_http or _is_loopback(parts.hostname)):
        raise InvalidRequest(
            f"the key would go to {parts.hostname} in the clear: use https, or say allow_plain_http=True",
            "base_url",
        )
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
