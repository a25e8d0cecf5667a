"""`/v1/responses`: create, in the background or not, read, resume, cancel, delete."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec
from starlette.requests import Request

from ropeway.domain.errors import InvalidRequest, JobLive, JobNotFound, RopewayError
from ropeway.domain.event import START, Event
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State
from ropeway.serving.callers import caller_of, tenant_of
from ropeway.serving.openai.bodies import read_call, read_object
from ropeway.serving.openai.calls import Calls
from ropeway.serving.openai.chat_body import check_features
from ropeway.serving.openai.departures import Departures
from ropeway.serving.openai.intake import Admitted, Call, Intake
from ropeway.serving.openai.names import RESPONSE, alias, job_id_of
from ropeway.serving.openai.response_body import ResponseBody, response_request
from ropeway.serving.openai.response_fold import NOTHING_SEEN, ResponseFold, items_of
from ropeway.serving.openai.response_view import (
    MARK,
    Mark,
    ResponseView,
    asked_of,
    conversation,
    input_items,
    mark_of,
    response_of,
)
from ropeway.serving.openai.served import served_model
from ropeway.serving.openai.streams import FoldStream
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Reply, json_reply
from ropeway.serving.streams import LogReader
from ropeway.serving.waits import has_ended, until

__all__ = ["ResponseRoutes", "response_call"]

CANCEL_WAIT_S = 5.0  # a task that listens stops at once; the answer tells how far it came
LIST_DEFAULT, LIST_LIMIT = 20, 100

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class _Page(NamedTuple):
    limit: int
    after: str | None
    descending: bool


class ResponseRoutes:
    """Responses: chat jobs that can be left and come back to."""

    def __init__(self, parts: Parts, intake: Intake, calls: Calls, departures: Departures) -> None:
        self._parts = parts
        self._intake = intake
        self._calls = calls
        self._departures = departures

    async def create_response(self, request: Request) -> Reply | FoldStream:
        call = await response_call(self._parts, tenant_of(request), await read_call(request, self._parts))
        body = cast(ResponseBody, call.body)
        self._intake.check_room(request)
        admitted = await self._intake.admit(request, call)
        if body.stream:
            return self._stream(admitted, NOTHING_SEEN, owned=True)
        if body.background:
            return json_reply(response_of(admitted.job), headers=admitted.headers)
        return await self._calls.finish(request, admitted, ResponseView.name)

    async def get_response(self, request: Request) -> Reply | FoldStream:
        job = await self._job(request)
        headers = [(b"x-job-id", job.id.encode())]
        if not _flag(request, "stream"):
            return json_reply(await self._shown(job), headers=headers)
        after = _number(request, "starting_after", NOTHING_SEEN)
        await self._departures.take_up(job)
        return self._stream(Admitted(job, headers), after, owned=False)

    async def cancel_response(self, request: Request) -> Reply:
        job = await self._job(request)
        if not mark_of(job).background:
            raise InvalidRequest("only a response in the background is cancelled: leave a call to end any other")
        job = await self._cancelled(request, job, "cancelled by its caller")
        return json_reply(await self._shown(job), headers=[(b"x-job-id", job.id.encode())])

    async def delete_response(self, request: Request) -> Reply:
        job = await self._cancelled(request, await self._job(request), "deleted")
        if not job.state.terminal:
            raise JobLive(f"{alias(RESPONSE, job.id)} was asked to stop and still runs; delete it when it has")
        (refusal,) = await self._parts.engine.purge(job.tenant, [job.id])
        if isinstance(refusal, RopewayError):
            raise refusal
        return json_reply({"id": alias(RESPONSE, job.id), "object": "response", "deleted": True})

    async def list_input_items(self, request: Request) -> Reply:
        job, page = await self._job(request), _page(request)
        items = input_items(job)
        if page.descending:
            items.reverse()
        if page.after is not None:
            places = [n for n, item in enumerate(items) if item["id"] == page.after]
            items = items[places[0] + 1 :] if places else []
        shown = items[: page.limit]
        return json_reply(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(items) > len(shown),
            }
        )

    def _stream(self, admitted: Admitted, after: int, *, owned: bool) -> FoldStream:
        """The events; who began the response and leaves may end it, who only looks in may not."""
        job = admitted.job
        left = (lambda: self._departures.left(job, admitted.held)) if owned else None
        return FoldStream(self._parts, job, ResponseFold(job, after), admitted.headers, left)

    async def _shown(self, job: Job) -> dict[str, Any]:
        """The response as it stands; of one that did not succeed, what it had made."""
        if job.state in (State.failed, State.cancelled):
            return response_of(job, items_of(job, await self._log(job)))
        return response_of(await self._parts.filled(job))

    async def _log(self, job: Job) -> list[Event]:
        reader, events = LogReader(self._parts, job.tenant, job.id, START), []
        while not reader.ended:
            page = await reader.read()
            if not page:
                break
            events += page
        return events

    async def _cancelled(self, request: Request, job: Job, reason: str) -> Job:
        """The job, asked to stop, and given a moment to."""
        if job.state.terminal:
            return job
        (answer,) = await self._parts.engine.cancel(job.tenant, [job.id], reason)
        if isinstance(answer, JobNotFound):
            raise answer
        if answer.state.terminal:
            return answer
        return await until(self._parts, request.receive, caller_of(request.scope), job.id, CANCEL_WAIT_S, has_ended)

    async def _job(self, request: Request) -> Job:
        return await _kept(self._parts, tenant_of(request), request.path_params["id"])


async def response_call(parts: Parts, tenant: str, raw: bytes) -> Call:
    """The call that this body is. Raises InvalidRequest, ModelNotFound, JobNotFound for an unknown response before."""
    said = read_object(raw)
    body, asked = response_request(said, await _before(parts, tenant, said))
    served = await served_model(parts, body.model, "chat")
    check_features(served.model, asked)
    mark = Mark(bool(body.background), body.kept, bool(body.instructions), body.previous_response_id)
    on_disconnect = "continue" if body.background else "cancel"
    return Call(raw, body, served, asked, on_disconnect, (MARK, msgspec.json.encode(mark).decode()))


async def _before(parts: Parts, tenant: str, said: dict[str, Any]) -> list[dict[str, Any]]:
    """What was said up to the end of the response that this one goes on from."""
    id_ = said.get("previous_response_id")
    if id_ is None:
        return []
    job = await _kept(parts, tenant, str(id_))
    if job.state is not State.succeeded:
        said_of_it = f"{str(id_)[:80]} is {job.state.value}: only what succeeded can be gone on from"
        raise InvalidRequest(said_of_it, param="previous_response_id")
    return conversation(await parts.filled(job))


async def _kept(parts: Parts, tenant: str, id_: str) -> Job:
    """The job of a response. What is not kept, no chat, or another's is as one that is not there."""
    (job,) = await parts.engine.get(tenant, [job_id_of(RESPONSE, id_)])
    if job is None or not mark_of(job).store:
        raise JobNotFound(f"no response {id_[:80]}")
    asked_of(job)
    return job


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in _FLAGS:
        raise InvalidRequest(f"{name} is true or false, not {text[:40]!r}", param=name)
    return _FLAGS[text]


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest(f"{name} is the number of an event, not {text[:40]!r}", param=name)
    return int(text)


def _page(request: Request) -> _Page:
    limit = _number(request, "limit", LIST_DEFAULT)
    if not 1 <= limit <= LIST_LIMIT:
        raise InvalidRequest(f"limit is 1 to {LIST_LIMIT}, not {limit}", param="limit")
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"order is asc or desc, not {order[:40]!r}", param="order")
    return _Page(limit, request.query_params.get("after"), order == "desc")
