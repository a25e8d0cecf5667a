"""What a job has made, as its log tells it: output in pieces since the last reset, and the steps that are done."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import msgspec

from ropeway.domain.event import OUTPUT_DELTA, OUTPUT_RESET, STEP_COMPLETED, Event

__all__ = ["Made", "joined", "output_json", "shown_data"]

ROW_LIMIT_CHARS = 8 << 20  # a row is read whole, again and again: what is larger stays in the log alone


class _Delta(msgspec.Struct, frozen=True):
    delta: msgspec.Raw
    index: int = 0
    item: bool = False


class _Step(msgspec.Struct, frozen=True):
    name: str
    result: msgspec.Raw


class _ShownStep(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    seconds: float | None = None


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_step = msgspec.json.Decoder(_Step).decode
_decode_shown = msgspec.json.Decoder(_ShownStep).decode
_encode = msgspec.json.Encoder().encode


class Made:
    """A fold over a log: give it every event, in order.

    `pieces` are the items of the output as JSON; strings that one event joined are one piece. `apart` are the places of
    those that are JSON strings and no text. `next_index` is above the index of every piece. `steps` gives the result of
    each completed step as JSON; a reset takes none of them back.
    """

    __slots__ = ("apart", "is_text", "next_index", "pieces", "steps")

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.steps: dict[str, str] = {}
        self._reset()
        self.add(events)

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.type == OUTPUT_DELTA:
                self._add_delta(event.data)
            elif event.type == OUTPUT_RESET:
                self._reset()
            elif event.type == STEP_COMPLETED:
                step = _decode_step(event.data)
                self.steps[step.name] = bytes(step.result).decode()

    @property
    def output(self) -> str | None:
        """The output so far as JSON: the strings as one, or the list of items; None when there is none."""
        return output_json(self.pieces, self.is_text, self.apart)

    @property
    def row_output(self) -> str | None:
        """The same, if a job's row may hold it."""
        size = sum(map(len, self.pieces))
        return None if size > ROW_LIMIT_CHARS else self.output

    def _reset(self) -> None:
        self.pieces: list[str] = []
        self.apart: set[int] = set()
        self.is_text = True
        self.next_index = 0

    def _add_delta(self, data: str) -> None:
        try:
            told = _decode_delta(data)
        except msgspec.MsgspecError:
            return  # not written by a worker of ours: it has no place in an output
        piece = bytes(told.delta).decode()
        if told.item:
            self.apart.add(len(self.pieces))
        self.pieces.append(piece)
        self.is_text = self.is_text and piece.startswith('"') and not told.item
        self.next_index = max(self.next_index, told.index + 1)


def output_json(pieces: Sequence[str], is_text: bool, apart: Container[int] = ()) -> str | None:
    """Items of an output, each as JSON, as the output that they come to; None when there are none.

    Strings that follow each other are one, as a reader of the log puts them together; but for those whose places
    `apart` names, which only look like text: a date, say.
    """
    if not pieces:
        return None
    return f'"{joined(pieces)}"' if is_text else f"[{','.join(_merged(pieces, apart))}]"


def _merged(pieces: Sequence[str], apart: Container[int]) -> Iterator[str]:
    text: list[str] = []
    for place, piece in enumerate(pieces):
        if piece.startswith('"') and place not in apart:
            text.append(piece)
            continue
        if text:
            yield f'"{joined(text)}"'
            text = []
        yield piece
    if text:
        yield f'"{joined(text)}"'


def joined(pieces: Sequence[str]) -> str:
    """JSON strings as the inside of one."""
    return "".join([piece[1:-1] for piece in pieces])


def shown_data(event: Event) -> str:
    """An event's data as readers get it: a step's result is for the job's own next attempt, and stays inside."""
    if event.type != STEP_COMPLETED:
        return event.data
    return _encode(_decode_shown(event.data)).decode()
