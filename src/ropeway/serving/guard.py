"""Who may knock: the Host and Origin checks that keep a stranger's web page away from a gateway on this machine.

A page at evil.test can have its own name resolve to 127.0.0.1 (DNS rebinding, as in CVE-2025-66414) or post to
http://127.0.0.1 outright. The first shows in Host, the second in Origin.
"""

from __future__ import annotations

from collections.abc import Mapping

from ropeway.serving.options import GatewayOptions
from ropeway.serving.problems import Forbidden

__all__ = ["Guard"]


class Guard:
    """Refuses hosts and origins that this gateway does not answer to."""

    def __init__(self, options: GatewayOptions) -> None:
        self._hosts = None if options.allowed_hosts is None else {name.lower() for name in options.allowed_hosts}
        origins = options.allowed_origins
        self._origins = None if origins is None else {origin.lower().encode() for origin in origins}
        self._welcome: set[bytes] = set()  # Host values that passed: there are few, so they are not parsed again

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises Forbidden."""
        host = headers.get(b"host", b"")
        if self._hosts is not None and host not in self._welcome:
            self._check_host(host)
        origin = headers.get(b"origin")
        if origin is not None and self._origins is not None:
            self._check_origin(origin.lower(), host.lower())

    def _check_host(self, host: bytes) -> None:
        name = _without_port(host.decode("latin-1").lower())
        if name not in (self._hosts or ()):
            raise Forbidden(f"this gateway does not answer to host {name[:100]!r}")
        if len(self._welcome) < 64:
            self._welcome.add(host)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        own = origin.partition(b"://")[2]
        if (not own or own != host) and origin not in (self._origins or ()):
            raise Forbidden(f"pages of origin {origin[:100].decode('latin-1')!r} may not call this gateway")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
