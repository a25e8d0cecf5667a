"""Where a gateway may listen: an address that only this machine reaches, unless somebody insists; and a free port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable

from ropeway.domain.errors import InvalidRequest, RopewayError

__all__ = ["CannotListen", "cannot_listen", "check_bind", "is_loopback", "probe_port"]


class CannotListen(RopewayError):
    """The address cannot be had."""

    code = "cannot_listen"


def check_bind(host: str, insecure: bool, has_key: Callable[[], bool] = lambda: False) -> None:
    """Raises InvalidRequest for an address that others can reach while there is no key that they are asked for."""
    if not insecure and not is_loopback(host) and not has_key():
        raise InvalidRequest(
            f"others can reach {host}, and there is no key yet that they would be asked for: make one with `ropeway "
            "keys create NAME`, or keep to 127.0.0.1, or say --insecure where the network itself keeps others out"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def probe_port(host: str, port: int) -> int:
    """The port, or a free one for 0, known to be free a moment ago.

    Chosen here, so that a gateway that is started again comes back where it was. Raises CannotListen.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            found: int = probe.getsockname()[1]
            return found
    except OSError as error:
        raise cannot_listen(host, port, error) from error


def cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    """What to tell of a socket that could not be opened."""
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"port {port} of {host} is in use: stop what runs there, or choose another with --port")
    if error.errno == errno.EACCES:
        return CannotListen(f"port {port} needs rights that this user has not: choose one above 1023 with --port")
    return CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}")
