"""What a gateway allows: sizes, times and names, each with its unit."""

from __future__ import annotations

import msgspec

__all__ = ["LOOPBACK_HOSTS", "MOUNTED", "GatewayOptions", "hosts_for"]

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_ANY_ADDRESS = ("", "0.0.0.0", "::", "[::]", "*")  # noqa: S104 - recognised, not bound


class GatewayOptions(msgspec.Struct, frozen=True):
    """The limits of a gateway.

    Attributes:
        allowed_hosts: the names that a request's Host may have (any port): a page that had its own name resolve to
            this machine (DNS rebinding) is refused. None: any, for a gateway behind a proxy or inside an application.
        allowed_origins: origins, as `https://app.example`, whose pages may call besides the gateway's own. None: any
            may, and what browsers want to be told of it (CORS) is left to the application around.
        requires_key: ask for a key even while there is none: for an address that others can reach.
        max_body_bytes: of one request. max_batch_bytes, max_batch_lines: of one NDJSON submit.
        max_depth: how deep a body may be nested.
        max_wait_s: the longest long-poll.
        body_deadline_s: for the whole body to arrive. The deadline for the head is the server's.
        write_deadline_s: a reader that takes nothing for so long is let go; it resumes where it was.
        heartbeat_s: quiet time on a stream before a comment is sent, so that proxies keep it open.
        recheck_s: how often a waiter looks again without a hint: one may be lost (reliability, rule 17).
        max_streams: open streams and long-polls; the next is answered 503.
        catalogue_ttl_s: how old the known tasks may be: a changed task is seen so soon.
        force_wait_s: how long a forced delete waits for a running job to stop.
        call_wait_s: a call on the OpenAI routes that is not streamed is answered, or sent on to wait again, by then.
        call_hops: how often it is sent on; SDKs follow 20 redirects at the most.
        departure_grace_s: whose client left comes back within it, or its synchronous call is cancelled.
        batch_lease_s: batches whose gateway has said nothing for so long are gone on with by another.
        reattach_s: so long after its end a call is found again by its SDK's retry.
        max_file_bytes: of one upload. max_tenant_file_bytes: of all that a tenant keeps; None: as there is room.
        webhook_allow: where webhooks may go beside the public network (`domain.targets.AllowList`); the workers that
            send them have the last word.
        max_uploads: that may come in at once; the next is answered 503.
        upload_deadline_s: for a whole upload to arrive; it may not stop for longer than `body_deadline_s` on the way.
    """

    allowed_hosts: tuple[str, ...] | None = LOOPBACK_HOSTS
    allowed_origins: tuple[str, ...] | None = ()
    requires_key: bool = False
    max_body_bytes: int = 1 << 20
    max_batch_bytes: int = 16 << 20
    max_batch_lines: int = 1_000
    max_depth: int = 64
    max_wait_s: float = 60.0
    body_deadline_s: float = 30.0
    write_deadline_s: float = 30.0
    heartbeat_s: float = 15.0  # WHATWG HTML, server-sent events, authoring notes: a comment every 15 s or so
    recheck_s: float = 15.0
    max_streams: int = 20_000
    catalogue_ttl_s: float = 2.0
    force_wait_s: float = 30.0
    call_wait_s: float = 50.0  # below the 60 s at which proxies give up by default
    call_hops: int = 15
    departure_grace_s: float = 5.0
    reattach_s: float = 900.0
    batch_lease_s: float = 10.0

    max_file_bytes: int = 512 << 20  # what OpenAI takes
    max_tenant_file_bytes: int | None = None
    max_uploads: int = 200  # each has up to 1 MiB in memory, on S3 some 15
    upload_deadline_s: float = 3_600.0
    webhook_allow: tuple[str, ...] = ()

    @property
    def tick_s(self) -> float:
        """How exactly a stream's times are kept."""
        return min(1.0, self.heartbeat_s / 20, self.recheck_s / 20)


MOUNTED = GatewayOptions(allowed_hosts=None, allowed_origins=None)
"""For a gateway inside an application, which has its own idea of hosts and origins."""


def hosts_for(bind: str) -> tuple[str, ...] | None:
    """The `allowed_hosts` that suit a server bound to this address or name: any, when it is bound to all of them."""
    if bind in _ANY_ADDRESS:
        return None
    named = f"[{bind}]" if ":" in bind and not bind.startswith("[") else bind
    return tuple(dict.fromkeys((*LOOPBACK_HOSTS, named)))
