"""The frames between a worker and a child: a length (4 bytes, big-endian), then a msgpack array that begins with a tag.

Two sockets lead to each child. On the first, jobs go down and what they tell comes up, in order; the child's main
thread reads it while it has nothing to do. On the second, which a thread of the child reads all the time, goes down
what cannot wait for the job's end.

Pickle is not used: types are read by the child's own copy of the application, from the job's JSON.
"""

from __future__ import annotations

import socket
import struct
import threading

import msgspec

from ropeway.domain.flow import Awaited
from ropeway.domain.lease import Assignment
from ropeway.domain.output import Made
from ropeway.runtime.verdict import Verdict

__all__ = [
    "Answer",
    "Ask",
    "Done",
    "Down",
    "Earlier",
    "Failed",
    "Frames",
    "Hello",
    "Job",
    "Log",
    "Out",
    "Progress",
    "Ready",
    "Stop",
    "Unfit",
    "Up",
    "Used",
    "Wire",
    "packed",
]

_HEAD = struct.Struct(">I")
READ_BYTES = 1 << 18


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first frame: what the child is to be. `address` is the application's, MODULE:NAME."""

    address: str
    tasks: tuple[str, ...]
    log_level: int
    data_mib: int | None


class Earlier(msgspec.Struct, frozen=True, array_like=True):
    """What earlier attempts made: `domain.output.Made`."""

    pieces: list[str]
    is_text: bool
    next_index: int
    steps: dict[str, str]

    @classmethod
    def of(cls, made: Made) -> Earlier:
        return cls(made.pieces, made.is_text, made.next_index, made.steps)

    def made(self) -> Made:
        made = Made()
        made.pieces, made.is_text, made.next_index, made.steps = self.pieces, self.is_text, self.next_index, self.steps
        return made


class Job(msgspec.Struct, frozen=True, array_like=True, tag="job"):
    """Run this. `files` are local copies of the files that its input names: id -> path, and the record as JSON.

    `awaited` are the jobs that it waited for.
    """

    n: int
    assignment: Assignment
    files: dict[str, tuple[str, str]] | None = None
    earlier: Earlier | None = None
    awaited: tuple[Awaited, ...] = ()


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """Job `n` is to stop. `reason` is one of `Reason`. `now`: its code is interrupted, wherever it is."""

    n: int
    reason: str
    now: bool = False


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """To `Ask` number `n`: JSON, or an error's code and words. Number 0: progress may be told again."""

    n: int
    value: str | None = None
    code: str | None = None
    detail: str | None = None


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The child has opened all that its tasks need."""


class Unfit(msgspec.Struct, frozen=True, array_like=True, tag="unfit"):
    """The child cannot run its tasks, and ends."""

    detail: str


class Out(msgspec.Struct, frozen=True, array_like=True, tag="out", gc=False):
    """An item of the output, as JSON; `text`: it is a string."""

    piece: str
    text: bool


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    data: str


class Log(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    message: str
    level: str


class Used(msgspec.Struct, frozen=True, array_like=True, tag="used"):
    amounts: str


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """Do this for the job's code, which waits for the answer, unless `n` is 0. `facts` are JSON."""

    n: int
    what: str
    facts: str


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """The job's code has ended. `output` is JSON, None when it is what was emitted."""

    output: str | None
    snooze: tuple[int, str | None] | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The job's code raised. `spent`: the child is not to be used again."""

    verdict: Verdict
    spent: bool = False
    snooze: tuple[int, str | None] | None = None


Down = Hello | Job | Stop | Answer
Up = Ready | Unfit | Out | Progress | Log | Used | Ask | Done | Failed

_encode = msgspec.msgpack.Encoder().encode
_decode_down = msgspec.msgpack.Decoder(Down).decode
_decode_up = msgspec.msgpack.Decoder(Up).decode


def packed(frame: Down | Up) -> bytes:
    """A frame as it goes over a socket."""
    body = _encode(frame)
    return _HEAD.pack(len(body)) + body


class Frames:
    """Puts the frames of a child together from what a socket gives."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def heard(self, data: bytes) -> list[Up]:
        """The frames that are whole with these bytes. Raises msgspec.DecodeError for what is no frame."""
        rest = self._rest
        rest += data
        frames: list[Up] = []
        at = 0
        while len(rest) - at >= _HEAD.size:
            begin = at + _HEAD.size
            end = begin + _HEAD.unpack_from(rest, at)[0]
            if len(rest) < end:
                break
            frames.append(_decode_up(rest[begin:end]))
            at = end
        del rest[:at]
        return frames


class Wire:
    """A child's end of a socket, blocking. Any thread may send."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._sending = threading.Lock()
        self.sender: int | None = None  # the thread that is within `send`
        self.owed: BaseException | None = None  # raised in it once its frame is whole

    def send(self, frame: Up) -> None:
        data = packed(frame)
        with self._sending:
            self.sender = threading.get_ident()
            try:
                self._socket.sendall(data)
            finally:
                self.sender = None
            owed, self.owed = self.owed, None
        if owed is not None:
            raise owed

    def receive(self) -> Down | None:
        """The next frame; None when the worker has no more, or is gone."""
        head = self._exactly(_HEAD.size)
        body = None if head is None else self._exactly(_HEAD.unpack(head)[0])
        return None if body is None else _decode_down(body)

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                part = self._socket.recv(min(size - len(data), READ_BYTES))
            except ConnectionError:
                return None
            if not part:
                return None
            data += part
        return bytes(data)
