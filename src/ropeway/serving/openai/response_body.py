"""From the body of `POST /v1/responses` to the request of a chat task: items to messages, flat tools to nested ones."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.chat import ChatRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.serving.openai.bodies import CallBody, converted, unknown_members
from ropeway.serving.openai.chat_body import check_messages, plain_format

__all__ = ["ResponseBody", "messages_of", "response_request"]

_REFUSED = {
    "conversation": "conversations are not kept here: use previous_response_id",
    "prompt": "stored prompts are not kept here: send the text",
    "context_management": "a conversation is used as it is: leave context_management out",
}
_TEXT_PARTS = ("input_text", "output_text", "text")


class _Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None


class _Text(msgspec.Struct, frozen=True):
    format: dict[str, Any] | None = None


class ResponseBody(CallBody, frozen=True, kw_only=True):
    """What is read of a response's body; the rest goes to the task as `extra`."""

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    stream_options: dict[str, Any] | None = None
    include: list[str] | None = None
    truncation: str | None = None
    max_tool_calls: int | None = None

    @property
    def kept(self) -> bool:
        """Whether the response may be read again."""
        return self.store is not False


def response_request(raw: dict[str, Any], before: list[dict[str, Any]]) -> tuple[ResponseBody, ChatRequest]:
    """The body as it was read, and the request that it makes of it and the messages `before`.

    Raises InvalidRequest; `param` names the member.
    """
    body = converted(raw, ResponseBody)
    _check_members(raw, body)
    said = messages_of(body.input)
    if not said:
        raise InvalidRequest("input is empty: there is nothing to answer", param="input")
    opening = [{"role": "system", "content": body.instructions}] if body.instructions else []
    messages = [*opening, *before, *said]
    check_messages(messages)
    request = ChatRequest(
        model=body.model,
        messages=messages,
        tools=[_nested(tool, n) for n, tool in enumerate(body.tools or [])],
        tool_choice=_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        temperature=body.temperature,
        top_p=body.top_p,
        max_tokens=_at_least_1(body.max_output_tokens),
        response_format=None if body.text is None else _nested_format(body.text.format),
        logprobs="message.output_text.logprobs" in (body.include or ()),
        top_logprobs=body.top_logprobs,
        reasoning_effort=None if body.reasoning is None else body.reasoning.effort,
        user=body.user,
        extra={name: value for name, value in unknown_members(raw, ResponseBody).items() if value is not None},
    )
    return body, request


def messages_of(items: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Input items as messages. Raises InvalidRequest for an item of a kind that is not read here."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}] if items else []
    messages: list[dict[str, Any]] = []
    for n, item in enumerate(items or []):
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"), n)})
        elif kind == "function_call":
            _add_call(messages, item, n)
        elif kind == "function_call_output":
            messages.append(_tool_message(item, n))
        elif kind != "reasoning":  # a model's earlier thoughts are its own: they are not sent again
            raise InvalidRequest(f"an item of type {str(kind)[:40]!r} is not read here", param=f"input[{n}].type")
    return messages


def _check_members(raw: dict[str, Any], body: ResponseBody) -> None:
    for name, said in _REFUSED.items():
        if raw.get(name):
            raise InvalidRequest(said, param=name)
    if body.background and not body.kept:
        raise InvalidRequest("a response in the background is kept: leave store out", param="store")


def _content(content: Any, n: int) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_part(part, f"input[{n}].content[{k}]") for k, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):  # a string is what every model understands
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    """A part of an item as a part of a message."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image = {"url": part["image_url"], **({"detail": part["detail"]} if part.get("detail") else {})}
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
    raise InvalidRequest(f"a part of type {str(kind)[:40]!r} is not read here, or lacks its content", param=where)


def _add_call(messages: list[dict[str, Any]], item: dict[str, Any], n: int) -> None:
    """A call belongs to the assistant's message before it, where there is one."""
    for name in ("call_id", "name", "arguments"):
        if not isinstance(item.get(name), str):
            raise InvalidRequest(f"a function call has its {name} as a string", param=f"input[{n}].{name}")
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1] = {**messages[-1], "tool_calls": [*messages[-1].get("tool_calls", []), call]}
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _tool_message(item: dict[str, Any], n: int) -> dict[str, Any]:
    if not isinstance(item.get("call_id"), str):
        raise InvalidRequest("a function call's output names its call_id", param=f"input[{n}].call_id")
    return {"role": "tool", "tool_call_id": item["call_id"], "content": _content(item.get("output"), n)}


def _nested(tool: dict[str, Any], n: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        kind = str(tool.get("type"))[:40]
        raise InvalidRequest(f"a tool of type {kind!r} is not run here: functions only", param=f"tools[{n}].type")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(said: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(said, dict):
        return said
    if said.get("type") != "function":
        raise InvalidRequest("tool_choice names a function, or is auto, none or required", param="tool_choice")
    return {"type": "function", "function": {"name": said.get("name")}}


def _nested_format(said: dict[str, Any] | None) -> dict[str, Any] | None:
    wanted = plain_format(said, "text.format")
    if wanted is None or wanted["type"] != "json_schema":
        return wanted
    return {
        "type": "json_schema",
        "json_schema": {name: value for name, value in wanted.items() if name != "type"},
    }


def _at_least_1(limit: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise InvalidRequest(f"max_output_tokens is at least 1, not {limit}", param="max_output_tokens")
    return limit
