"""A chat job as OpenAI's `chat.completion`: whole from its row, or in chunks from its log.

1. A chunk is put together from bytes: what all chunks of a stream have in common is encoded once, and words are taken
   from the event as they stand there.
2. What was streamed cannot be taken back. When a new attempt begins after something was, the stream ends with an error;
   when nothing was, nobody can tell.
3. Nothing but chunks goes out here: no ids, no named events, no progress (OpenAI's SDKs take each for a chunk).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.chat import ChatDelta
from ropeway.domain.errors import JobFailed
from ropeway.domain.event import (
    CANCELLED,
    FAILED,
    OUTPUT_DELTA,
    OUTPUT_RESET,
    SNAPSHOT,
    SUCCEEDED,
    Event,
)
from ropeway.domain.job import Job
from ropeway.serving.openai.answers import Answer, Usage, raw_piece, unreadable, usage_of
from ropeway.serving.openai.bodies import service_tier
from ropeway.serving.openai.failures import failed, failure_of_data
from ropeway.serving.openai.names import CHAT, alias, seconds
from ropeway.serving.problems import Mirror, mirror_of

__all__ = ["ChatFold", "ChatView", "model_of", "usage_body"]

_DONE = b"data: [DONE]\n\n"


class _Ending(msgspec.Struct, frozen=True):
    usage: msgspec.Raw = msgspec.Raw()


class _Asked(msgspec.Struct, frozen=True):
    model: str = ""


class _Input(msgspec.Struct, frozen=True):
    request: _Asked = _Asked()


_encode = msgspec.json.Encoder().encode
_decode_delta = msgspec.json.Decoder(ChatDelta).decode
_decode_ending = msgspec.json.Decoder(_Ending).decode
_decode_input = msgspec.json.Decoder(_Input).decode


class ChatView:
    """The whole completion."""

    name = "chat.completion"

    def body(self, job: Job) -> bytes:
        answer, usage = Answer.of(job), usage_of(job.usage)
        choice = {
            "index": 0,
            "message": answer.message(),
            "logprobs": {"content": answer.logprobs} if answer.logprobs else None,
            "finish_reason": answer.reason,
        }
        completion = {
            "id": alias(CHAT, job.id),
            "object": "chat.completion",
            "created": seconds(job),
            "model": model_of(job),
            "choices": [choice],
            "service_tier": service_tier(job),
            "system_fingerprint": None,
        }
        if usage is not None:
            completion["usage"] = usage_body(usage)
        return _encode(completion)


class ChatFold:
    """The stream of chunks. `ended` once its last byte was given."""

    needs_job = False

    def __init__(self, job: Job, *, with_usage: bool) -> None:
        self.ended = False
        self._job_id = job.id
        self._with_usage = with_usage
        self._began = False
        self._has_calls = False
        self._reason: str | None = None
        self._frame: dict[str, Any] = {
            "id": alias(CHAT, job.id),
            "object": "chat.completion.chunk",
            "created": seconds(job),
            "model": model_of(job),
            "service_tier": service_tier(job),
            "system_fingerprint": None,
        }
        self._head = b"data: " + _encode(self._frame)[:-1] + b',"choices":[{"index":0,"delta":'
        self._tail = b"}]" + (b',"usage":null' if with_usage else b"") + b"}\n\n"
        self._plain_tail = b',"logprobs":null,"finish_reason":null' + self._tail

    def add(self, event: Event, job: Job | None = None) -> bytes:
        """What goes out for the next event of the log."""
        if event.type == OUTPUT_DELTA:
            return self._delta(event.data)
        if event.type in (OUTPUT_RESET, SNAPSHOT):
            return self._broken() if self._began else b""
        if event.type == SUCCEEDED:
            return self._success(event.data)
        if event.type in (FAILED, CANCELLED):
            problem = failure_of_data(self._job_id, event.data, cancelled=event.type == CANCELLED)
            return self._failure(problem.error)
        return b""

    def interrupted(self) -> bytes:
        """For when the gateway cannot go on, the job may: it is there under its id."""
        said = f"the stream was interrupted; {self._job_id} can be read at /v1/jobs/{self._job_id}"
        return self._failure(mirror_of(503, said, "draining"))

    def _delta(self, data: str) -> bytes:
        try:
            raw = raw_piece(data)
            if raw[:1] == b'"':
                return self._head + self._opened(b'{"content":' + raw + b"}") + self._plain_tail
            return self._rich(_decode_delta(raw))
        except msgspec.MsgspecError as error:
            return self._failure(failed(self._job_id, unreadable(self._job_id, error).error).error)

    def _rich(self, piece: ChatDelta) -> bytes:
        self._reason = piece.finish_reason or self._reason
        self._has_calls = self._has_calls or bool(piece.tool_calls)
        delta = {
            name: value
            for name, value in (
                ("content", piece.content),
                ("reasoning_content", piece.reasoning),
                ("refusal", piece.refusal),
                ("tool_calls", piece.tool_calls),
            )
            if value
        }
        if not delta:
            return b""
        logprobs = _encode({"content": piece.logprobs} if piece.logprobs else None)
        tail = b',"logprobs":' + logprobs + b',"finish_reason":null' + self._tail
        return self._head + self._opened(_encode(delta)) + tail

    def _opened(self, delta: bytes) -> bytes:
        """The delta; the first of a stream tells the role too."""
        if self._began:
            return delta
        self._began = True
        return b'{"role":"assistant",' + delta[1:] if delta != b"{}" else b'{"role":"assistant","content":""}'

    def _success(self, data: str) -> bytes:
        self.ended = True
        reason = self._reason or ("tool_calls" if self._has_calls else "stop")
        opening = b"" if self._began else self._head + self._opened(b"{}") + self._plain_tail
        last = self._head + b'{},"logprobs":null,"finish_reason":' + _encode(reason) + self._tail
        return opening + last + self._usage(data) + _DONE

    def _usage(self, data: str) -> bytes:
        if not self._with_usage:
            return b""
        said = _decode_ending(data).usage
        usage = usage_of(str(said, "utf-8")) or Usage()
        return b"data: " + _encode({**self._frame, "choices": [], "usage": usage_body(usage)}) + b"\n\n"

    def _broken(self) -> bytes:
        said = f"{self._job_id} began anew after part of its answer was sent, which a stream cannot take back"
        return self._failure(mirror_of(500, said, "output_reset"))

    def _failure(self, error: Mirror) -> bytes:
        self.ended = True
        return b"data: " + _encode({"error": error}) + b"\n\n" + _DONE


def model_of(job: Job) -> str:
    """The model that a job asks for."""
    try:
        return _decode_input(job.input).request.model
    except msgspec.MsgspecError as error:
        raise JobFailed(job.id, unreadable(job.id, error).error) from error


def usage_body(usage: Usage) -> dict[str, Any]:
    """Tokens as the chat completions tell them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
