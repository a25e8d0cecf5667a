"""One POST over one connection, and of its answer the status and the beginning. HTTP/1.1, by h11."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import h11

from ropeway.domain.targets import AllowList, Target
from ropeway.operations.webhooks.connecting import Streams, Unreachable, connect
from ropeway.operations.webhooks.resolving import Resolve

__all__ = ["Answer", "NoAnswer", "Poster"]

TIMEOUT_S = 15.0  # Standard Webhooks, "Delivery timeouts": 15 to 30 s
BODY_WAIT_S = 2.0  # for the body, of which a beginning is enough
EXCERPT_BYTES = 1024
HEAD_LIMIT_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_TEXT_TYPES = ("text/", "application/json", "application/problem+json", "application/xml")


class NoAnswer(Exception):
    """A connection was made, and no HTTP answer came over it. `code` says what came of it, for machines."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


class Answer(NamedTuple):
    """What the endpoint said. `excerpt` is at most 1 kB of its text; `retry_after` the header as it came."""

    status: int
    excerpt: str = ""
    retry_after: str | None = None

    def retry_after_s(self, now_ms: int) -> float | None:
        """Seconds to wait that it asked for, given as such or as a date; None when it did not, or not so."""
        text = (self.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:12])
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return max(email.utils.parsedate_to_datetime(text).timestamp() - now_ms / 1000, 0.0)
        return None


class Poster:
    """Sends bodies. `context` is what TLS trusts; the system's authorities by default."""

    def __init__(
        self,
        allowed: AllowList,
        resolve: Resolve,
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._context = context
        self._timeout_s = timeout_s

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        """One request. Raises Unreachable before, and NoAnswer after a connection was made."""
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        streams = await self._connected(target, deadline_s)
        try:
            async with asyncio.timeout_at(deadline_s):
                return await _exchange(streams, _request(target, headers, body), body)
        except TimeoutError:
            raise NoAnswer("webhook_timeout", f"no answer within {self._timeout_s:g} s") from None
        except (h11.RemoteProtocolError, UnicodeDecodeError) as error:
            raise NoAnswer("webhook_no_http", f"the answer is no HTTP: {error}") from error
        except OSError as error:
            raise NoAnswer("webhook_cut", "the connection broke before an answer") from error
        finally:
            streams.writer.transport.abort()

    async def _connected(self, target: Target, deadline_s: float) -> Streams:
        try:
            async with asyncio.timeout_at(deadline_s):
                return await connect(target, self._allowed, self._resolve, await self._trusted(target))
        except TimeoutError:
            raise Unreachable("no connection in time") from None
        except ssl.SSLError as error:
            what = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
            raise NoAnswer("webhook_tls", f"TLS: {what}") from error
        except OSError as error:  # within the handshake
            raise NoAnswer("webhook_tls", "TLS: the connection broke in the handshake") from error

    async def _trusted(self, target: Target) -> ssl.SSLContext | None:
        """Made when it is first needed, and off the loop: the system has many authorities."""
        if self._context is None and target.is_https:
            self._context = await asyncio.to_thread(ssl.create_default_context)
        return self._context


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> h11.Request:
    fixed = {
        "Host": target.authority,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    return h11.Request(method="POST", target=target.path, headers=[*fixed.items(), *headers.items()])


async def _exchange(streams: Streams, request: h11.Request, body: bytes) -> Answer:
    talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT_BYTES)
    head = talk.send(request) or b""
    rest = talk.send(h11.Data(data=body)) or b""
    streams.writer.write(head + rest + (talk.send(h11.EndOfMessage()) or b""))
    # An endpoint may answer before it has read all, and close: its answer counts, not our write.
    event = await _next(talk, streams)
    while isinstance(event, h11.InformationalResponse):
        event = await _next(talk, streams)
    if not isinstance(event, h11.Response):
        raise ConnectionResetError("closed without an answer")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
    excerpt = await _excerpt(talk, streams) if headers.get("content-type", "").startswith(_TEXT_TYPES) else ""
    return Answer(event.status_code, excerpt, headers.get("retry-after"))


async def _excerpt(talk: h11.Connection, streams: Streams) -> str:
    """The beginning of the body as far as it came; the status is known, so what goes wrong here does not matter."""
    taken = b""
    with contextlib.suppress(TimeoutError, OSError, h11.RemoteProtocolError):
        async with asyncio.timeout(BODY_WAIT_S):
            while len(taken) < EXCERPT_BYTES:
                event = await _next(talk, streams)
                if not isinstance(event, h11.Data):
                    break
                taken += bytes(event.data)
    text = taken[:EXCERPT_BYTES].decode("utf-8", "replace")
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


async def _next(talk: h11.Connection, streams: Streams) -> object:
    while (event := talk.next_event()) is h11.NEED_DATA:
        talk.receive_data(await streams.reader.read(_READ_BYTES))
    return event
