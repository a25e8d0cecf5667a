"""The output of a response: what the pieces of a chat come to as items, each with its place and its own id.

Words, thoughts and calls are items of their own kinds. An item is open until another kind begins, calls until the end:
a model may write several side by side.
"""

from __future__ import annotations

from typing import Any

from ropeway.domain.chat import ChatDelta
from ropeway.serving.openai.answers import Piece

__all__ = ["Addition", "Item", "Items"]

_PREFIX = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}


class Item:
    """One item. `part` is the type of the content part that grows, None for a call."""

    __slots__ = ("_chunks", "call_id", "id", "index", "kind", "logprobs", "name", "open", "part")

    def __init__(self, kind: str, part: str | None, index: int, id_: str) -> None:
        self.kind = kind
        self.part = part
        self.index = index
        self.id = id_
        self.open = True
        self.call_id = ""
        self.name = ""
        self.logprobs: list[dict[str, Any]] = []
        self._chunks: list[str] = []

    def grow(self, text: str) -> None:
        self._chunks.append(text)

    @property
    def text(self) -> str:
        return "".join(self._chunks)

    def content_part(self, *, empty: bool = False) -> dict[str, Any]:
        """The part as the protocol has it."""
        text = "" if empty else self.text
        if self.part == "refusal":
            return {"type": "refusal", "refusal": text}
        if self.part == "reasoning_text":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "annotations": [], "logprobs": [] if empty else self.logprobs, "text": text}

    def shown(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        """The item as the protocol has it; `empty`: as it begins."""
        if self.kind == "function_call":
            return {
                "id": self.id,
                "type": self.kind,
                "status": status,
                "call_id": self.call_id,
                "name": self.name,
                "arguments": "" if empty else self.text,
            }
        content = [] if empty else [self.content_part()]
        if self.kind == "reasoning":
            return {"id": self.id, "type": self.kind, "summary": [], "content": content, "status": status}
        return {"id": self.id, "type": self.kind, "status": status, "role": "assistant", "content": content}


class Addition:
    """What a piece did: the items that it closed, the one that it grew by `text`, and whether that one is new."""

    __slots__ = ("closed", "is_new", "item", "logprobs", "text")

    def __init__(self, item: Item, text: str, *, is_new: bool, closed: list[Item]) -> None:
        self.item = item
        self.text = text
        self.is_new = is_new
        self.closed = closed
        self.logprobs: list[dict[str, Any]] = []


class Items:
    """The items of one attempt, in their order. `first` is the place of the first: those of earlier attempts stay."""

    def __init__(self, suffix: str, epoch: int, first: int = 0) -> None:
        self.all: list[Item] = []
        self.finish_reason: str | None = None
        self._suffix = f"{suffix}{epoch & 0xFFFF:04x}"
        self.first = first
        self._current: Item | None = None
        self._calls: dict[int, Item] = {}

    def add(self, piece: Piece) -> list[Addition]:
        """Take a piece; what it did, in order."""
        if isinstance(piece, str):
            return [self._grow("message", "output_text", piece)]
        self.finish_reason = piece.finish_reason or self.finish_reason
        additions = [
            self._grow(kind, part, text)
            for kind, part, text in (
                ("reasoning", "reasoning_text", piece.reasoning),
                ("message", "output_text", piece.content),
                ("message", "refusal", piece.refusal),
            )
            if text
        ]
        if piece.logprobs and additions:
            additions[-1].item.logprobs += piece.logprobs
            additions[-1].logprobs = piece.logprobs
        return additions + self._add_calls(piece)

    @property
    def writing(self) -> Item | None:
        """The message that words are added to now, if there is one."""
        current = self._current
        return current if current is not None and current.part == "output_text" else None

    @property
    def open(self) -> list[Item]:
        """Those that are not closed yet."""
        return [item for item in self.all if item.open]

    def close_all(self) -> list[Item]:
        """Close what is open; those that were."""
        closing = self.open
        for item in closing:
            item.open = False
        return closing

    def _grow(self, kind: str, part: str, text: str) -> Addition:
        current, closed = self._current, []
        is_new = current is None or current.kind != kind or current.part != part
        if current is None or is_new:
            closed = self._close_current()
            current = self._current = self._begin(kind, part)
        current.grow(text)
        return Addition(current, text, is_new=is_new, closed=closed)

    def _add_calls(self, piece: ChatDelta) -> list[Addition]:
        additions = []
        for said in piece.tool_calls:
            index, function = said.get("index", 0), said.get("function") or {}
            call, closed = self._calls.get(index), []
            is_new = call is None
            if call is None:
                closed = self._close_current()
                call = self._calls[index] = self._begin("function_call", None)
                call.call_id = said.get("id") or f"call_{index}"
                call.name = function.get("name") or ""
            text = function.get("arguments") or ""
            call.grow(text)
            additions.append(Addition(call, text, is_new=is_new, closed=closed))
        return additions

    def _begin(self, kind: str, part: str | None) -> Item:
        n = len(self.all)
        item = Item(kind, part, self.first + n, f"{_PREFIX[kind]}{self._suffix}{n:02x}")
        self.all.append(item)
        return item

    def _close_current(self) -> list[Item]:
        current, self._current = self._current, None
        if current is None:
            return []
        current.open = False
        return [current]
