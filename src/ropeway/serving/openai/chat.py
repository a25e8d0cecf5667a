"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request

from ropeway.serving.callers import tenant_of
from ropeway.serving.openai.bodies import read_call, read_object
from ropeway.serving.openai.calls import Calls
from ropeway.serving.openai.chat_body import ChatBody, chat_request, check_features
from ropeway.serving.openai.chat_view import ChatFold, ChatView
from ropeway.serving.openai.departures import Departures
from ropeway.serving.openai.intake import Call, Intake
from ropeway.serving.openai.served import served_model
from ropeway.serving.openai.streams import FoldStream
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Reply

__all__ = ["ChatRoutes", "chat_call"]


class ChatRoutes:
    """Chats, whole or streamed."""

    def __init__(self, parts: Parts, intake: Intake, calls: Calls, departures: Departures) -> None:
        self._parts = parts
        self._intake = intake
        self._calls = calls
        self._departures = departures

    async def create_chat_completion(self, request: Request) -> Reply | FoldStream:
        raw = await read_call(request, self._parts)
        call = await chat_call(self._parts, tenant_of(request), raw)
        body = cast(ChatBody, call.body)
        self._intake.check_room(request)
        admitted = await self._intake.admit(request, call)
        if not body.stream:
            return await self._calls.finish(request, admitted, ChatView.name)
        job = admitted.job
        return FoldStream(
            self._parts,
            job,
            ChatFold(job, with_usage=body.with_usage),
            admitted.headers,
            lambda: self._departures.left(job, admitted.held),
        )


async def chat_call(parts: Parts, tenant: str, raw: bytes) -> Call:
    """The call that this body is. Raises InvalidRequest, ModelNotFound."""
    body, asked = chat_request(read_object(raw))
    served = await served_model(parts, body.model, "chat")
    check_features(served.model, asked)
    return Call(raw, body, served, asked)
