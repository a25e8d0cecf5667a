"""What a model task takes and gives: a chat request, the pieces of its answer, and a request for embeddings.

They have OpenAI's fields and mean what they mean there. A task that takes one of these as `request` may serve models on
the OpenAI routes; a native submit reaches the same task with `{"request": {…}}` as its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["ChatDelta", "ChatRequest", "EmbeddingRequest", "text_of"]


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A conversation to be gone on with. What is None, or empty, was not said.

    Attributes:
        model: the id under which the task serves it.
        messages: as OpenAI has them, oldest first; `content` is a string, a list of parts, or None beside tool calls.
        tools, tool_choice, parallel_tool_calls: functions that the model may ask for.
        max_tokens: of the answer, reasoning included; `max_completion_tokens` of a request on the OpenAI routes too.
        stop: sequences that end the answer and are no part of it.
        response_format: `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {…}}`.
        logprobs, top_logprobs: whether, and how many, log probabilities go with each token.
        extra: the members of a request that have no field here, for a task that passes them on.
    """

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] = {}
    response_format: dict[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    extra: dict[str, Any] = {}


class ChatDelta(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A piece of an answer that is more than words. A plain `str` yielded is the same as `ChatDelta(content=…)`.

    Attributes:
        content, reasoning, refusal: text to append to what came before.
        tool_calls: as in OpenAI's stream: `{"index": 0, "id": …, "type": "function", "function": {"name": …,
            "arguments": …}}`, where later pieces of the same index append to `arguments` and may leave out the rest.
        logprobs: those of the tokens in `content`, as OpenAI's `logprobs.content`.
        finish_reason: `stop`, `length`, `tool_calls` or `content_filter`. It goes with the last piece; when it is left
            out, it is `tool_calls` if there were any, else `stop`.
    """

    content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] = []
    logprobs: list[dict[str, Any]] = []
    finish_reason: str | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Texts to be embedded: the task returns one vector for each, in their order.

    `dimensions` asks for shorter vectors, of models that can. `extra` as in ChatRequest.
    """

    model: str
    input: list[str]
    dimensions: int | None = None
    user: str | None = None
    extra: dict[str, Any] = {}


def text_of(message: Mapping[str, Any]) -> str:
    """The words of a message, whether its content is a string or a list of parts; parts that are no text are left out.

    For a model that reads words alone: the OpenAI routes refuse pictures and sounds for models that do not take them.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part["text"] for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str))
