"""Where a gateway may listen: an address that only this machine reaches, unless somebody insists; and a free port."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable

from ropeway.client.keyring import KeyRing
from ropeway.config import DEFAULT_ENGINE, ServerSettings
from ropeway.domain.errors import InvalidRequest, RopewayError
from ropeway.engines.base import Engine

__all__ = ["CannotListen", "cannot_listen", "check_bind", "is_loopback", "probe_port", "warn_if_open"]

log = logging.getLogger("ropeway.cli")


class CannotListen(RopewayError):
    """The address cannot be had."""

    code = "cannot_listen"


def check_bind(
    host: str, insecure: bool, has_key: Callable[[], bool] = lambda: False, *, engine: str = DEFAULT_ENGINE
) -> None:
    """Raises InvalidRequest for an address that others can reach while there is no key that they are asked for.

    `engine` is its URL as it may be shown, for the command that makes a key there.
    """
    if not insecure and not is_loopback(host) and not has_key():
        raise InvalidRequest(
            f"others can reach {host}, and nobody would be asked for a key there, since none was made yet: "
            f"{_remedy(engine)}, or listen on 127.0.0.1 alone, or say --insecure where the network itself keeps others "
            "out"
        )


async def warn_if_open(server: ServerSettings, engine: Engine) -> None:
    """Log what it means, where others can reach a gateway and are asked for no key, since somebody insisted."""
    if not server.insecure or is_loopback(server.host) or await KeyRing(engine).is_locked():
        return
    log.warning(
        "others can reach %s, and nobody is asked for a key (--insecure): whoever reaches this gateway may do "
        "everything there. To end that, %s",
        server.host,
        _remedy(engine.info.url),
    )


def _remedy(engine: str) -> str:
    if engine.partition(":")[0] == "memory":
        return "keep the jobs where a key can be kept too (sqlite:, redis:) and make one"
    named = "" if engine.endswith(DEFAULT_ENGINE.partition(":")[2]) else f" --engine {engine}"
    return f"make one with `ropeway keys create NAME{named}`"


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
