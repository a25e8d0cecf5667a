"""`GET /v1/ws`: the handshake, and how a refusal reaches who asked.

A page can set no header on its socket, and is not told the status of a handshake that was refused. So its key comes as
a subprotocol beside ours, and a refusal that it can do something about is told as a close: 4401 no key, 4403 not that
key, 4429 too many, 1012 come back. What no page should see, or what cannot be a client of ours, is refused as HTTP.
"""

from __future__ import annotations

import contextlib

from ropeway.domain.caller import Caller
from ropeway.domain.caller import Scope as Right
from ropeway.domain.errors import Forbidden, InvalidRequest, RateLimited, RopewayError, Unauthenticated
from ropeway.serving.guard import Guard
from ropeway.serving.parts import Parts
from ropeway.serving.problems import NotFound, TooManyStreams, problem_reply
from ropeway.serving.refusals import refused
from ropeway.serving.replies import Message, Receive, Scope, Send
from ropeway.serving.requests import header_map
from ropeway.serving.router import path_in
from ropeway.serving.submit import Submit
from ropeway.serving.websocket.commands import Commands
from ropeway.serving.websocket.frames import PATH, ErrorTold, Reconnect, encode, told_s
from ropeway.serving.websocket.session import Session, spread_ms

__all__ = ["SUBPROTOCOL", "Sockets"]

SUBPROTOCOL = "ropeway.v1"

_CLOSE_CODES: tuple[tuple[type[RopewayError], int], ...] = (
    (Unauthenticated, 4401),
    (Forbidden, 4403),
    (RateLimited, 4429),
    (TooManyStreams, 4429),
)
_COME_BACK = 1012


class Sockets:
    """Takes WebSockets."""

    def __init__(self, parts: Parts, guard: Guard, submit: Submit) -> None:
        self._parts = parts
        self._guard = guard
        self._submit = submit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """From the handshake to the close."""
        await receive()  # websocket.connect
        try:
            self._check(scope)
        except RopewayError as error:
            await self._refuse(error, scope, send)
            return
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL, "headers": []})
        try:
            session = Session(self._parts, await self._caller(scope), scope.get("root_path", ""), receive, send)
            self._parts.watches.enter(session, session.caller)
        except RopewayError as error:
            await self._close(error, send)
            return
        try:
            await session.run(Commands(session, self._submit))
        finally:
            self._parts.watches.leave(session)

    def _check(self, scope: Scope) -> None:
        """Raises what is told as HTTP."""
        if path_in(scope) != PATH:
            raise NotFound(f"there is no WebSocket at {path_in(scope)[:200]}: it is at {PATH}")
        self._guard.check(header_map(scope))
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            raise InvalidRequest(f"offer the subprotocol {SUBPROTOCOL}", param="Sec-WebSocket-Protocol")

    async def _caller(self, scope: Scope) -> Caller:
        caller = await self._parts.door.admit(scope, header_map(scope))
        if caller.scopes.isdisjoint((Right.read, Right.write, Right.cancel)):
            raise Forbidden(f"this needs a key with the scope {Right.read}, {Right.write} or {Right.cancel}")
        return caller

    async def _refuse(self, error: RopewayError, scope: Scope, send: Send) -> None:
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})  # a server answers 403
            return
        problem, after_s = refused(error, self._parts.rates)

        async def send_refusal(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await problem_reply(problem, (), after_s)({}, _nothing, send_refusal)

    async def _close(self, error: RopewayError, send: Send) -> None:
        """Say why in a frame, where there is more room, and close with the code that tells the kind."""
        self._parts.noticed(error)
        problem, after_s = refused(error, self._parts.rates)
        code = next((code for kind, code in _CLOSE_CODES if isinstance(error, kind)), _COME_BACK)
        told = Reconnect(spread_ms()) if code == _COME_BACK else ErrorTold(None, problem, told_s(after_s))
        with contextlib.suppress(OSError):
            await send({"type": "websocket.send", "text": encode(told)})
            await send({"type": "websocket.close", "code": code, "reason": problem.code})


async def _nothing() -> Message:
    raise AssertionError("a refusal reads nothing")
