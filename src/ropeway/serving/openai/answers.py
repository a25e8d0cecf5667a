"""What a chat comes to: pieces as its task made them, put together. A pure fold, so any gateway gives the same."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.chat import ChatDelta
from ropeway.domain.errors import JobError, JobFailed
from ropeway.domain.job import Job

__all__ = ["Answer", "Piece", "Usage", "output_pieces", "piece_of", "raw_piece", "unreadable", "usage_of"]

Piece = str | ChatDelta


class Usage(msgspec.Struct, frozen=True):
    """What a job says that it used, in tokens. Other amounts are not told on these routes."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


class _Delta(msgspec.Struct, frozen=True):
    delta: str | ChatDelta


class _Raw(msgspec.Struct, frozen=True):
    delta: msgspec.Raw


_decode_raw = msgspec.json.Decoder(_Raw).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_output = msgspec.json.Decoder(str | list[str | ChatDelta] | None).decode
_decode_usage = msgspec.json.Decoder(dict[str, Any]).decode


class Answer:
    """The answer so far. `finish_reason` is what the model said, None while it said nothing."""

    __slots__ = ("_content", "_reasoning", "_refusal", "calls", "finish_reason", "logprobs")

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason: str | None = None

    @classmethod
    def of(cls, job: Job) -> Answer:
        """What a job that succeeded came to. Raises JobFailed when its output is no chat's."""
        answer = cls()
        for piece in output_pieces(job):
            answer.add(piece)
        return answer

    def add(self, piece: Piece) -> None:
        if isinstance(piece, str):
            self._content.append(piece)
            return
        for text, kept in (
            (piece.content, self._content),
            (piece.reasoning, self._reasoning),
            (piece.refusal, self._refusal),
        ):
            if text:
                kept.append(text)
        for call in piece.tool_calls:
            self._add_call(call)
        self.logprobs += piece.logprobs
        self.finish_reason = piece.finish_reason or self.finish_reason

    @property
    def content(self) -> str | None:
        """None when there are only tool calls, or a refusal."""
        return "".join(self._content) if self._content or not (self.calls or self._refusal) else None

    @property
    def reasoning(self) -> str | None:
        return "".join(self._reasoning) if self._reasoning else None

    @property
    def refusal(self) -> str | None:
        return "".join(self._refusal) if self._refusal else None

    @property
    def reason(self) -> str:
        """Why it ended."""
        return self.finish_reason or ("tool_calls" if self.calls else "stop")

    def message(self) -> dict[str, Any]:
        """The assistant's message, as a conversation has it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content, "refusal": self.refusal}
        if self._reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return message

    def _add_call(self, piece: dict[str, Any]) -> None:
        index = piece.get("index", 0)
        function = piece.get("function") or {}
        call = self.calls.setdefault(index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call["id"] = piece.get("id") or call["id"] or f"call_{index}"
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


def piece_of(job_id: str, data: str) -> Piece:
    """The piece that an `output.delta` event carries. Raises JobFailed when it is none of a chat's."""
    try:
        return _decode_delta(data).delta
    except msgspec.MsgspecError as error:
        raise unreadable(job_id, error) from error


def raw_piece(data: str) -> bytes:
    """The same as JSON, unread. Raises msgspec.MsgspecError when there is none."""
    return bytes(_decode_raw(data).delta)


def output_pieces(job: Job) -> list[Piece]:
    """All the pieces of a job that succeeded. Raises JobFailed when they are none of a chat's."""
    try:
        output = _decode_output(job.output or "null")
    except msgspec.MsgspecError as error:
        raise unreadable(job.id, error) from error
    return [output] if isinstance(output, str) else list(output or ())


def unreadable(job_id: str, error: Exception) -> JobFailed:
    """The task made something that is no model's answer."""
    return JobFailed(job_id, JobError("output_invalid", f"the task's output is not what a model gives: {error}"))


def usage_of(usage: str | None) -> Usage | None:
    """The tokens in a job's usage, None where it tells of none."""
    amounts = _decode_usage(usage) if usage else {}
    told = {name: int(amounts[name]) for name in Usage.__struct_fields__ if isinstance(amounts.get(name), int | float)}
    return Usage(**told) if told else None
