"""Names into addresses, on threads of their own: a slow name server keeps nobody waiting but who asked.

The threads are daemons, since nothing can stop a lookup, and a process that ends is not to wait for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable

__all__ = ["Resolve", "resolver"]

LOOKUPS = 32  # at once; more wait for one of these

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""All addresses of a host, for a connection to this port. Raises OSError when there are none."""


def resolver() -> Resolve:
    """The system's own resolver. Use it in one loop."""
    room = asyncio.Semaphore(LOOKUPS)

    async def resolve(host: str, port: int) -> list[str]:
        async with room:
            return await _on_thread(host, port)

    return resolve


async def _on_thread(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(info[4][0]) for info in infos))
        except OSError as error:
            failure = error
        except UnicodeError as error:  # a label that the resolver's own coding refuses
            failure = OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, addresses, failure)

    threading.Thread(target=look_up, name="ropeway-resolve", daemon=True).start()
    return await found
