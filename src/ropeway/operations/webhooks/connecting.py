"""A connection to where a webhook may go, and to nowhere else.

The name is resolved once; each address that it has must be one that may be reached; the connection goes to one of these
very addresses, and its other end is looked at again before a byte is sent. So no second look at the name, by anybody,
can lead elsewhere (DNS rebinding). No proxy is asked and no redirect followed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from typing import NamedTuple

from ropeway.domain.targets import AllowList, Target
from ropeway.operations.webhooks.resolving import Resolve

__all__ = ["Streams", "Unreachable", "connect"]


class Unreachable(Exception):
    """No connection could be made, for whatever reason: `why` is for the operator, and never told to a tenant.

    Who may not learn what listens inside is to see no difference between a forbidden address and a closed port.
    """

    def __init__(self, why: str) -> None:
        super().__init__("no connection could be made to the endpoint")
        self.why = why


class Streams(NamedTuple):
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def connect(target: Target, allowed: AllowList, resolve: Resolve, context: ssl.SSLContext | None) -> Streams:
    """Connect to a target, with TLS when its URL says so: `context` is whom that trusts.

    Raises Unreachable; ssl.SSLError when the other end is not whom the name says.
    """
    addresses = await _addresses(target, resolve)
    closed = [address for address in addresses if not allowed.lets_reach(target, address)]
    if closed:
        raise Unreachable(f"{target.host} leads to {closed[0]}, which webhooks may not reach")
    reached = await _reach(target, addresses)
    reader, writer = await asyncio.open_connection(
        sock=reached,  # the loop's from here on, to be closed too
        ssl=context if target.is_https else None,
        server_hostname=target.host if target.is_https else None,
    )
    return Streams(reader, writer)


async def _addresses(target: Target, resolve: Resolve) -> list[str]:
    if target.address is not None:
        return [target.host]
    try:
        addresses = await resolve(target.host, target.port)
    except OSError as error:
        raise Unreachable(f"{target.host} cannot be resolved: {error}") from error
    if not addresses:
        raise Unreachable(f"{target.host} has no address")
    return addresses


async def _reach(target: Target, addresses: list[str]) -> socket.socket:
    """A connected socket to the first of these addresses that answers."""
    failure = ""
    for address in addresses:
        try:
            return await _reach_one(address, target.port)
        except OSError as error:
            failure = f"{address}: {error}"
    raise Unreachable(failure)


async def _reach_one(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, (address, port))
        peer = str(one.getpeername()[0])
        if ip_address(peer) != ip_address(address):
            raise OSError(f"the other end is {peer}")
    except BaseException:
        one.close()
        raise
    return one
