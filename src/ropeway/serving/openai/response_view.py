"""A chat job as OpenAI's `response`: made from its row alone, whenever and wherever it is asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.domain.chat import ChatRequest
from ropeway.domain.errors import InvalidRequest, JobNotFound
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.serving.openai.answers import Answer, Usage, output_pieces, usage_of
from ropeway.serving.openai.bodies import service_tier
from ropeway.serving.openai.failures import recorded_error
from ropeway.serving.openai.names import RESPONSE, alias, seconds
from ropeway.serving.openai.response_items import Items

__all__ = [
    "MARK",
    "Mark",
    "ResponseView",
    "asked_of",
    "conversation",
    "input_items",
    "mark_of",
    "response_of",
    "shell_of",
]

MARK = "ropeway.response"
"""The pair in a job's metadata that makes it a response; it is not shown among those of the caller."""

_ERROR_CODES = {"input_invalid": "invalid_prompt", "provider_rate_limited": "rate_limit_exceeded"}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

_encode = msgspec.json.Encoder().encode


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a response says of itself that its request does not tell. `instructed`: its first message is that."""

    background: bool = False
    store: bool = True
    instructed: bool = False
    previous: str | None = None


class _Input(msgspec.Struct, frozen=True):
    request: ChatRequest


_decode_mark = msgspec.json.Decoder(Mark).decode
_decode_input = msgspec.json.Decoder(_Input).decode


class ResponseView:
    """The whole response of a job that ended."""

    name = "response"

    def body(self, job: Job) -> bytes:
        return _encode(response_of(job))


def mark_of(job: Job) -> Mark:
    """What the response says of itself. A chat that was not begun as a response can be read as one all the same."""
    text = job.options.metadata.get(MARK)
    try:
        return Mark() if text is None else _decode_mark(text)
    except msgspec.MsgspecError:  # somebody else's pair of that name
        return Mark()


def asked_of(job: Job) -> ChatRequest:
    """What the job asks of its model. Raises JobNotFound for a job that is no chat."""
    try:
        return _decode_input(job.input).request
    except msgspec.MsgspecError:
        raise JobNotFound(f"no response {alias(RESPONSE, job.id)}") from None


def response_of(job: Job, items: Items | None = None) -> dict[str, Any]:
    """The response as it stands; `items` are those that a job which did not succeed had made.

    Raises JobFailed when the output of a job that succeeded is no chat's, JobNotFound for a job that is no chat.
    """
    shell = shell_of(job)
    if job.state is State.succeeded:
        items = Items(job.id.removeprefix("job_"), job.epoch)
        for piece in output_pieces(job):
            items.add(piece)
        shell.update(_ending(items))
    elif job.state is State.failed:
        error = recorded_error(job)
        code = _ERROR_CODES.get(error.code, "server_error")
        shell.update(status="failed", error={"code": code, "message": f"{error.code}: {error.message}"})
    elif job.state is State.cancelled:
        shell["status"] = "cancelled"
    elif job.attempt:
        shell["status"] = "in_progress"
    if items is not None:
        item_status = "completed" if job.state is State.succeeded else "incomplete"
        shell["output"] = [item.shown(item_status) for item in items.all]
    shell["usage"] = _usage(usage_of(job.usage)) if job.state.terminal else None
    shell["completed_at"] = job.finished_at_ms // 1000 if job.finished_at_ms is not None else None
    return shell


def shell_of(job: Job) -> dict[str, Any]:
    """The response as it was when it was queued. Raises JobNotFound for a job that is no chat."""
    asked, mark = asked_of(job), mark_of(job)
    return {
        "id": alias(RESPONSE, job.id),
        "object": "response",
        "created_at": seconds(job),
        "status": "queued",
        "background": mark.background,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.messages[0]["content"] if mark.instructed else None,
        "max_output_tokens": asked.max_tokens,
        "metadata": {name: value for name, value in job.options.metadata.items() if name != MARK},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": mark.previous,
        "reasoning": {"effort": asked.reasoning_effort, "summary": None},
        "service_tier": service_tier(job),
        "store": mark.store,
        "temperature": asked.temperature,
        "text": {"format": _flat_format(asked.response_format)},
        "tool_choice": _flat_choice(asked.tool_choice),
        "tools": [_flat_tool(tool) for tool in asked.tools],
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": asked.user,
    }


def conversation(job: Job) -> list[dict[str, Any]]:
    """What was said up to the end of this response, its instructions left out: they are of one response only.

    Raises JobFailed when its output is no chat's, JobNotFound for a job that is no chat.
    """
    messages = asked_of(job).messages[1 if mark_of(job).instructed else 0 :]
    answer = Answer.of(job).message()
    kept = {name: value for name, value in answer.items() if name in ("role", "content", "tool_calls")}
    return [*messages, kept]


def input_items(job: Job) -> list[dict[str, Any]]:
    """The messages of a response's request as items, oldest first.

    Raises JobNotFound for a job that is no chat, InvalidRequest for messages that cannot be shown so.
    """
    messages = asked_of(job).messages[1 if mark_of(job).instructed else 0 :]
    try:
        return _items(job.id.removeprefix("job_"), messages)
    except (KeyError, TypeError, AttributeError) as error:  # a native submit may say anything
        raise InvalidRequest("this job's messages are not of OpenAI's kind") from error


def _items(suffix: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for n, message in enumerate(messages):
        if message["role"] == "tool":
            output = {"type": "function_call_output", "call_id": message.get("tool_call_id")}
            items.append({**output, "id": f"fco_{suffix}i{n:03x}", "output": message.get("content")})
            continue
        if message.get("content") is not None:
            parts = _parts(message["role"], message["content"])
            shown = {"type": "message", "status": "completed", "role": message["role"], "content": parts}
            items.append({**shown, "id": f"msg_{suffix}i{n:03x}"})
        for k, call in enumerate(message.get("tool_calls") or ()):
            told = {"type": "function_call", "status": "completed", "call_id": call.get("id"), **call["function"]}
            items.append({**told, "id": f"fc_{suffix}i{n:03x}{k:02x}"})
    return items


def _parts(role: str, content: Any) -> list[dict[str, Any]]:
    kind = "output_text" if role == "assistant" else "input_text"
    if isinstance(content, str):
        return [{"type": kind, "text": content}]
    return [
        {"type": kind, "text": part["text"]} if part.get("type") == "text" else _flat_part(part) for part in content
    ]


def _flat_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "image_url":
        image = part.get("image_url") or {}
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail", "auto")}
    return {"type": "input_file", **(part.get("file") or {})}


def _ending(items: Items) -> dict[str, Any]:
    reason = _INCOMPLETE.get(items.finish_reason or "")
    if reason is None:
        return {"status": "completed"}
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _flat_format(wanted: dict[str, Any] | None) -> dict[str, Any]:
    if wanted is None:
        return {"type": "text"}
    schema = wanted.get("json_schema")
    return {"type": wanted.get("type"), **(schema if isinstance(schema, dict) else {})}


def _flat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    return {"type": "function", "strict": None, **(function if isinstance(function, dict) else {})}


def _flat_choice(said: str | dict[str, Any] | None) -> Any:
    if isinstance(said, dict):
        function = said.get("function")
        return {"type": "function", "name": function.get("name") if isinstance(function, dict) else None}
    return said or "auto"
