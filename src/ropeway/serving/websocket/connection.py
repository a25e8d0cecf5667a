"""A WebSocket connection of our server: the framing of `websockets`, the limits our own.

uvicorn brings three such classes. None of them bounds what a peer that sends and does not read can make the server
hold: pongs are written though nobody takes them, and a read of 256 KiB is parsed whole, into ten thousands of frames.
Measured on 2 cores, us of CPU to send an event of 200 bytes | to receive a command: this 2.1 | 13, uvicorn's with
websockets 17.4 4.3 | 11, with wsproto 1.3 8-12 | 36-43. picows is faster still, and no part of uvicorn; with these
figures the socket is not what costs.

1. Bytes are parsed a few KiB at a time, and only while the application keeps up and the peer reads. The rest waits as
   bytes, at most one read of them, and the socket is read no further.
2. A frame above the limit is refused by its header, before its payload has come. There is no compression, so what
   comes is as large as it was sent, and a frame of ours is its text behind two to ten bytes.
3. A close is written at once, also behind what a stuck peer has not taken; it has a few seconds to be answered.
4. A quiet peer is pinged. One that answers nothing for a whole interval is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from ropeway.serving.replies import Message, Scope
from ropeway.serving.websocket.wire import frame, refusal, scope_of

__all__ = ["WebSocketConnection", "websocket_class"]

PARSE_BYTES = 4_096  # at a time: at most some 700 frames, the smallest there are
FRAGMENTS = 1_024  # of one message; empty ones would add up to no size
CLOSE_S = 5.0  # for a close to be answered

_NORMAL, _GOING, _PROTOCOL_ERROR, _NO_STATUS, _ABNORMAL, _BAD_TEXT, _RESTART = 1000, 1001, 1002, 1005, 1006, 1007, 1012

_log = logging.getLogger("ropeway.serving")


class WebSocketConnection(asyncio.Protocol):
    """One connection, from the head of its handshake on; uvicorn makes it, and the application sees plain ASGI."""

    max_frame_bytes: int
    ping_s: float

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._app = config.loaded_app
        self._root_path = config.root_path
        self._state = server_state
        self._protocol = ServerProtocol(max_size=self.max_frame_bytes, logger=_log)
        self._unparsed = b""
        self._messages: deque[Message] = deque()
        self._fragments: list[bytes] = []
        self._is_text = True
        self._taken: asyncio.Future[None] | None = None  # who waits for a message
        self._writable = asyncio.Event()
        self._writable.set()
        self._accepted: Response | None = None  # the answer to the handshake, until it is sent
        self._refusal: Message | None = None
        self._over = False
        self._is_reading = True
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._end(_ABNORMAL)
        self._writable.set()  # nothing will ever drain
        self._cancel_timer()

    def eof_received(self) -> None:
        self._end(_ABNORMAL)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._read_on(False)

    def resume_writing(self) -> None:
        self._writable.set()
        self._parse()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._unparsed += data
        self._parse()

    def shutdown(self) -> None:
        """The server ends, and has waited for the application as long as it would."""
        if self._protocol.state is State.OPEN:
            self._close(_RESTART, "")
        self._end(_RESTART)
        self._hang_up()

    # -- what comes

    def _parse(self) -> None:
        """Parse while there is somebody to take it; read on when nothing is left."""
        while self._unparsed and self._may_parse:
            part, self._unparsed = self._unparsed[:PARSE_BYTES], self._unparsed[PARSE_BYTES:]
            self._protocol.receive_data(part)
            self._flush()
            for event in self._protocol.events_received():
                self._take(event)
            if self._protocol.parser_exc is not None:
                self._fail(self._protocol.close_sent.code if self._protocol.close_sent else _ABNORMAL)
        self._read_on(self._may_parse)

    @property
    def _may_parse(self) -> bool:
        return not self._messages and self._writable.is_set()

    def _take(self, event: Any) -> None:
        if isinstance(event, Request):
            self._shake_hands(event)
        elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
            self._end(self._protocol.close_rcvd.code if self._protocol.close_rcvd else _NO_STATUS)
            self._hang_up()
        elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._take_data(event)

    def _take_data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > FRAGMENTS:
            self._protocol.fail(_PROTOCOL_ERROR, f"a message has at most {FRAGMENTS} fragments")
            self._fail(_PROTOCOL_ERROR)
        elif frame.fin:
            data, self._fragments = b"".join(self._fragments), []
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        if self._protocol.state is not State.OPEN:
            return  # we have said goodbye
        if not self._is_text:
            self._tell({"type": "websocket.receive", "bytes": data})
            return
        try:
            self._tell({"type": "websocket.receive", "text": data.decode()})
        except UnicodeDecodeError as error:
            self._protocol.fail(_BAD_TEXT, f"not UTF-8 at byte {error.start}")
            self._fail(_BAD_TEXT)

    def _shake_hands(self, request: Request) -> None:
        answer = self._protocol.accept(request)
        if answer.status_code != 101:
            self._protocol.send_response(answer)
            self._flush()
            self._hang_up()
            return
        self._accepted = answer
        self._tell({"type": "websocket.connect"})
        task = self._loop.create_task(self._run(scope_of(request, self._transport, self._root_path)))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    # -- the application's side

    async def _run(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except Exception:
            _log.exception("a WebSocket broke")
        if self._accepted is not None:  # neither accepted nor refused
            self._refuse(500, [], b"")
        elif self._protocol.state is State.OPEN:
            self._close(_GOING, "")

    async def _receive(self) -> Message:
        while not self._messages:
            self._taken = self._loop.create_future()
            await self._taken
        if self._over and len(self._messages) == 1:
            return self._messages[0]
        message = self._messages.popleft()
        self._parse()
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            await self._writable.wait()
            if self._over or self._protocol.state is not State.OPEN:
                raise ClientDisconnected
            text = message.get("text")
            data = message.get("bytes", b"") if text is None else text.encode()
            self._transport.write(frame(data, is_text=text is not None))
        elif message["type"] == "websocket.close" and self._accepted is None:
            self._close(message.get("code", _NORMAL), message.get("reason") or "")
        else:
            self._shake(message)

    def _shake(self, message: Message) -> None:
        """The application's part of the handshake."""
        if self._accepted is None and self._refusal is None:
            raise RuntimeError(f"{message['type']} after the handshake")
        if message["type"] == "websocket.accept":
            self._accept(message)
        elif message["type"] == "websocket.close":
            self._refuse(403, [], b"")
        elif message["type"] == "websocket.http.response.start":
            self._refusal = message
        elif self._refusal is not None:
            self._refuse(self._refusal["status"], self._refusal["headers"], message.get("body", b""))

    def _accept(self, message: Message) -> None:
        answer, self._accepted = self._accepted, None
        if answer is None or self._over:
            raise ClientDisconnected
        if message.get("subprotocol"):
            answer.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        for name, value in message.get("headers", ()):
            answer.headers[name.decode("latin-1")] = value.decode("latin-1")
        self._protocol.send_response(answer)
        self._flush()
        self._timer = self._loop.call_later(self.ping_s, self._ping)

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._accepted = self._refusal = None
        if self._over:
            return
        self._protocol.send_response(refusal(status, headers, body))
        self._flush()
        self._hang_up()

    # -- the end

    def _close(self, code: int, reason: str) -> None:
        """Say goodbye, behind what is not taken yet, and wait for the answer for a while."""
        if self._over or self._protocol.state is not State.OPEN:
            return
        self._protocol.send_close(code, reason)
        self._flush()
        self._messages.clear()
        self._fragments = []
        self._give_it(CLOSE_S)
        self._loop.call_soon(self._parse)

    def _fail(self, code: int) -> None:
        """The peer broke the protocol, and has been told so."""
        self._flush()
        self._end(code)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection when what is written has been taken; soon, in any case."""
        self._unparsed = b""
        if not self._transport.is_closing():
            self._give_it(CLOSE_S)
            self._transport.close()

    def _give_it(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_later(seconds, self._transport.abort)

    def _end(self, code: int) -> None:
        """Nothing will come any more; the application is told as often as it asks."""
        if not self._over:
            self._over = True
            self._tell({"type": "websocket.disconnect", "code": code})

    def _ping(self) -> None:
        if self._protocol.state is not State.OPEN:
            return
        if self._may_parse:  # else it is we who do not listen, or who have told it more than it takes
            if not self._heard:
                self._transport.abort()
                return
            self._heard = False
            self._protocol.send_ping(b"")
            self._flush()
        self._timer = self._loop.call_later(self.ping_s, self._ping)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- both

    def _read_on(self, wanted: bool) -> None:
        if wanted is not self._is_reading and not self._transport.is_closing():
            self._is_reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _tell(self, message: Message) -> None:
        self._messages.append(message)
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._transport.is_closing():
            self._transport.write(data)


def websocket_class(max_frame_bytes: int, ping_s: float) -> type[asyncio.Protocol]:
    """The class of a server's WebSockets: uvicorn makes them by itself, so their limits are the class's."""
    limits = {"max_frame_bytes": max_frame_bytes, "ping_s": ping_s}
    return type("LimitedWebSocket", (WebSocketConnection,), limits)
