"""From the body of `POST /v1/chat/completions` to the request of a chat task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ropeway.domain.chat import ChatRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.worker import ModelCard
from ropeway.serving.openai.bodies import CallBody, converted, unknown_members

__all__ = ["ChatBody", "chat_request", "check_features", "check_messages", "plain_format"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_STOP_LIMIT = 16
_PARTS = {"text": None, "refusal": None, "image_url": "images", "input_audio": "audio", "file": "files"}
_FORMATS = ("text", "json_object", "json_schema")
_TOO_OLD = {"functions": "tools", "function_call": "tool_choice"}


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class ChatBody(CallBody, frozen=True, kw_only=True):
    """What is read of a chat completion's body; the rest goes to the task as `extra`."""

    messages: list[dict[str, Any]]
    stream_options: StreamOptions | None = None
    n: int | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None

    @property
    def with_usage(self) -> bool:
        """Whether the stream's last chunk tells what was used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def chat_request(raw: dict[str, Any]) -> tuple[ChatBody, ChatRequest]:
    """The body as it was read, and the request that it makes. Raises InvalidRequest; `param` names the member."""
    body = converted(raw, ChatBody)
    _check_choices(raw, body)
    check_messages(body.messages)
    _check_tools(body.tools or [])
    request = ChatRequest(
        model=body.model,
        messages=body.messages,
        tools=body.tools or [],
        tool_choice=body.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls,
        temperature=_within("temperature", body.temperature, 0, 2),
        top_p=_within("top_p", body.top_p, 0, 1),
        max_tokens=_at_least_1(body),
        stop=_stop(body.stop),
        seed=body.seed,
        presence_penalty=_within("presence_penalty", body.presence_penalty, -2, 2),
        frequency_penalty=_within("frequency_penalty", body.frequency_penalty, -2, 2),
        logit_bias=body.logit_bias or {},
        response_format=plain_format(body.response_format, "response_format"),
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs,
        reasoning_effort=body.reasoning_effort,
        user=body.user,
        extra=unknown_members(raw, ChatBody),
    )
    return body, request


def check_features(model: ModelCard, request: ChatRequest) -> None:
    """Nothing, when the model can do what is asked. Raises InvalidRequest with the member that it does not take."""
    for feature, param in _features(request):
        if feature not in model.takes:
            what = {"images": "pictures", "audio": "sound"}.get(feature, feature)
            raise InvalidRequest(f"model '{model.id}' does not take {what}", param=param)


def plain_format(asked: dict[str, Any] | None, param: str) -> dict[str, Any] | None:
    """The format of an answer; None for text, which needs no asking. Raises InvalidRequest."""
    if asked is None:
        return None
    kind = asked.get("type")
    if kind not in _FORMATS:
        raise InvalidRequest(f"{param}.type is one of {', '.join(_FORMATS)}, not {str(kind)[:40]!r}", f"{param}.type")
    return None if kind == "text" else asked


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Nothing, when these are messages. Raises InvalidRequest with the one that is not."""
    if not messages:
        raise InvalidRequest("messages is empty: there is nothing to answer", param="messages")
    for n, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise InvalidRequest(f"a role is one of {', '.join(_ROLES)}, not {str(role)[:40]!r}", f"messages[{n}].role")
        if isinstance(content, list):
            _check_parts(content, n)
        elif not isinstance(content, str) and not (content is None and role == "assistant"):
            raise InvalidRequest("content is a string or a list of parts", f"messages[{n}].content")


def _check_parts(parts: list[Any], n: int) -> None:
    for k, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        where = f"messages[{n}].content[{k}]"
        if not isinstance(kind, str) or kind not in _PARTS:
            raise InvalidRequest(f"a part's type is one of {', '.join(_PARTS)}, not {str(kind)[:40]!r}", where)
        if kind == "text" and not isinstance(part.get("text"), str):
            raise InvalidRequest("a text part has its text as a string", f"{where}.text")


def _check_choices(raw: dict[str, Any], body: ChatBody) -> None:
    if body.n not in (None, 1):
        raise InvalidRequest("one choice is made at a time: leave n out, and ask again for another", param="n")
    for old, new in _TOO_OLD.items():
        if raw.get(old):
            raise InvalidRequest(f"{old} is not read here: use {new}", param=old)
    modalities = raw.get("modalities")
    if raw.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        raise InvalidRequest("answers are text: ask for no audio", param="modalities")


def _check_tools(tools: list[dict[str, Any]]) -> None:
    for n, tool in enumerate(tools):
        function = tool.get("function")
        if (
            tool.get("type") != "function"
            or not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
        ):
            raise InvalidRequest("a tool is of type function, and its function has a name", param=f"tools[{n}]")


def _features(request: ChatRequest) -> Iterable[tuple[str, str]]:
    """What a request asks of its model besides words, and the member that asks it."""
    if request.tools:
        yield "tools", "tools"
    if request.response_format is not None:
        yield "response_format", "response_format"
    if request.logprobs or request.top_logprobs:
        yield "logprobs", "logprobs"
    for n, message in enumerate(request.messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            feature = _PARTS.get(part["type"])
            if feature is not None:
                yield feature, f"messages[{n}].content"


def _within(param: str, value: float | None, least: float, most: float) -> float | None:
    if value is not None and not least <= value <= most:
        raise InvalidRequest(f"{param} is {least:g} to {most:g}, not {value:g}", param=param)
    return value


def _at_least_1(body: ChatBody) -> int | None:
    param = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    limit = getattr(body, param)
    if limit is not None and limit < 1:
        raise InvalidRequest(f"{param} is at least 1, not {limit}", param=param)
    return None if limit is None else int(limit)


def _stop(said: str | list[str] | None) -> list[str]:
    stop = [said] if isinstance(said, str) else said or []
    if len(stop) > _STOP_LIMIT:
        raise InvalidRequest(f"there are at most {_STOP_LIMIT} stop sequences, not {len(stop)}", param="stop")
    return [text for text in stop if text]
