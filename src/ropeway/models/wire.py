"""What is said to an OpenAI-compatible API and what it answers: bodies out, pieces of answers in."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.models.options import UpstreamOptions

__all__ = ["Chunk", "Garbled", "Usage", "chat_body", "embedding_body", "pieces_of", "read_chunk", "read_vectors"]

_OURS = ("model", "messages", "stream", "stream_options", "n", "input", "encoding_format")
_REASONS = frozenset({"length", "tool_calls", "content_filter"})  # `stop` is what an end means when it says nothing
_COUNT_LIMIT = 10**12


class Garbled(Exception):
    """The provider said something that the API has not."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens, as the provider counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def amounts(self) -> dict[str, int]:
        """In Ropeway's words; what is unsaid, nothing or absurd is left out."""
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        reasoned = self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None
        counts = {
            "input_tokens": self.prompt_tokens,
            "output_tokens": self.completion_tokens,
            "cached_tokens": cached,
            "reasoning_tokens": reasoned,
        }
        return {name: count for name, count in counts.items() if count is not None and 0 < count < _COUNT_LIMIT}


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class Chunk(msgspec.Struct):
    """One event of a chat stream. `error` is one that came in the stream's midst."""

    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None

    @property
    def finished(self) -> bool:
        """Whether the answer ends with it; only counts come after."""
        return any(choice.index == 0 and choice.finish_reason is not None for choice in self.choices or ())


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    usage: Usage | None = None


_encode = msgspec.json.encode
_chunk_decoder = msgspec.json.Decoder(Chunk)
_vectors_decoder = msgspec.json.Decoder(_Vectors)


def chat_body(request: ChatRequest, model: str, options: UpstreamOptions) -> bytes:
    """The body of a streaming chat call to the provider's `model`."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    extra = _foreign(fields.pop("extra", {}))
    if "max_tokens" in fields:
        fields[options.max_tokens_field] = fields.pop("max_tokens")
    streaming: dict[str, Any] = {"stream": True}
    if options.stream_usage:
        streaming["stream_options"] = {"include_usage": True}
    return _encode({**extra, **fields, "model": model, **streaming})


def embedding_body(request: EmbeddingRequest, model: str) -> bytes:
    """The body of a call for vectors of numbers."""
    fields: dict[str, Any] = msgspec.to_builtins(request)
    extra = _foreign(fields.pop("extra", {}))
    return _encode({**extra, **fields, "model": model, "encoding_format": "float"})


def read_chunk(data: bytes) -> Chunk:
    """An event of a chat stream. Raises Garbled."""
    try:
        return _chunk_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"the provider sent an event that is no chat chunk: {error}") from None


def pieces_of(chunk: Chunk) -> list[str | ChatDelta]:
    """What a chunk adds to the answer. Words alone are a `str`, so that a plain answer stays plain text."""
    return [piece for choice in chunk.choices or () if choice.index == 0 and (piece := _piece(choice)) is not None]


def read_vectors(body: bytes, count: int) -> tuple[list[list[float]], dict[str, int]]:
    """The vectors in the order of their texts, and what was used. Raises Garbled unless there is one for each."""
    try:
        answer = _vectors_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbled(f"the provider's answer holds no embeddings: {error}") from None
    placed = {position if one.index is None else one.index: one.embedding for position, one in enumerate(answer.data)}
    if len(answer.data) != count or placed.keys() != set(range(count)):
        raise Garbled(f"the provider sent {len(answer.data)} embeddings for {count} texts")
    return [placed[position] for position in range(count)], answer.usage.amounts() if answer.usage else {}


def _piece(choice: _Choice) -> str | ChatDelta | None:
    delta = choice.delta or _Delta()
    reason = choice.finish_reason if choice.finish_reason in _REASONS else None
    reasoning = delta.reasoning_content or delta.reasoning
    logprobs = (choice.logprobs.content if choice.logprobs else None) or []
    if not (reasoning or delta.refusal or delta.tool_calls or logprobs or reason):
        return delta.content or None
    return ChatDelta(
        content=delta.content or None,
        reasoning=reasoning or None,
        refusal=delta.refusal or None,
        tool_calls=delta.tool_calls or [],
        logprobs=logprobs,
        finish_reason=reason,
    )


def _foreign(extra: dict[str, Any]) -> dict[str, Any]:
    """A caller's other members, without those that would change what the call is."""
    return {name: value for name, value in extra.items() if name not in _OURS}
