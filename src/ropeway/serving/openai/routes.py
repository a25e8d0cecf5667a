"""The routes that OpenAI's SDKs call. Members and parameters that are not known here are no fault."""

from __future__ import annotations

from typing import Any

from ropeway.domain.caller import Scope
from ropeway.serving.openai.served import ModelBody, ModelList
from ropeway.serving.route import JSON, SSE, Answer, Param, Route

__all__ = ["OPENAI_ROUTES", "RESULT_PARAMS"]

_TAG = "openai"
_OBJECT = dict[str, Any]
_CREATING = (400, 401, 404, 408, 409, 413, 415, 422, 424, 429, 502, 503, 504)
_TOLD = ("X-Job-Id", "Server-Timing")

_ID = Param("id", "path", {"type": "string", "pattern": "^resp_[A-Za-z0-9]{1,60}$"}, "The response's id.")
_MODEL = Param("id", "path", {"type": "string", "maxLength": 128}, "The model's id; it may hold slashes.")
_KEY = Param(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "Makes the call safe to repeat: the same key and body give the same job, another body is refused.",
)
_STREAM = Param(
    "stream", "query", {"type": "string", "enum": ["true", "false"]}, "Its events instead, from the first to the last."
)
_AFTER = Param(
    "starting_after", "query", {"type": "integer", "minimum": 0}, "Leave out the events up to this `sequence_number`."
)
_LIMIT = Param("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Items on a page.")
_ORDER = Param("order", "query", {"type": "string", "enum": ["asc", "desc"]}, "`desc`, the default: newest first.")
_PAGE = Param("after", "query", {"type": "string"}, "The id of the last item of the page before.")

RESULT_PARAMS = (
    Param(
        "as",
        "query",
        {"type": "string", "enum": ["chat.completion", "response", "embedding.list", "embedding.list.base64"]},
        "What OpenAI's routes would answer with: where a call that takes long is sent on to.",
    ),
    Param("hop", "query", {"type": "integer", "minimum": 0, "maximum": 999}, "How often it was sent on."),
)
"""What `/v1/jobs/{id}/result` takes besides."""

_SENT_ON = Answer(303, "It takes long: follow, and wait on.", (), ("Location", "X-Job-Id"))


def _create(path: str, operation: str, about: str, what: str, *, streams: bool = True) -> Route:
    content = ((JSON, _OBJECT), (SSE, _OBJECT)) if streams else ((JSON, _OBJECT),)
    return Route(
        "POST",
        path,
        operation,
        _TAG,
        about,
        (Answer(200, what, content, _TOLD), _SENT_ON),
        (_KEY,),
        ((JSON, _OBJECT),),
        needs_body=True,
        errors=_CREATING,
        scope=Scope.write,
        lenient=True,
    )


def _of_response(
    method: str, path: str, operation: str, about: str, answer: Answer, *params: Param, scope: Scope, errors: Any
) -> Route:
    return Route(
        method,
        f"/v1/responses/{{id}}{path}",
        operation,
        _TAG,
        about,
        (answer,),
        (_ID, *params),
        errors=(400, 404, *errors, 503),
        scope=scope,
        lenient=True,
    )


_MODELS = (
    Route(
        "GET",
        "/v1/models",
        "list_models",
        _TAG,
        "The models that tasks serve.",
        (Answer(200, "All of them.", ((JSON, ModelList),)),),
        errors=(503,),
        scope=Scope.read,
        lenient=True,
    ),
    Route(
        "GET",
        "/v1/models/{id:path}",
        "get_model",
        _TAG,
        "A model.",
        (Answer(200, "The model.", ((JSON, ModelBody),)),),
        (_MODEL,),
        errors=(404, 503),
        scope=Scope.read,
        lenient=True,
    ),
)

_CALLS = (
    _create(
        "/v1/chat/completions",
        "create_chat_completion",
        "Go on with a conversation: whole, or in chunks as they come. Leaving ends it.",
        "The completion, or its chunks.",
    ),
    _create(
        "/v1/embeddings",
        "create_embedding",
        "Turn texts into vectors.",
        "The vectors.",
        streams=False,
    ),
    _create(
        "/v1/responses",
        "create_response",
        "Answer input: whole, in events, or in the background, to be read and resumed from anywhere.",
        "The response, or its events.",
    ),
)

_RESPONSES = (
    _of_response(
        "GET",
        "",
        "get_response",
        "A response as it stands; or its events, from the first one or after one.",
        Answer(200, "The response, or its events.", ((JSON, _OBJECT), (SSE, _OBJECT))),
        _STREAM,
        _AFTER,
        scope=Scope.read,
        errors=(424, 429, 500),
    ),
    _of_response(
        "POST",
        "/cancel",
        "cancel_response",
        "Cancel a response in the background. Harmless when repeated, or too late.",
        Answer(200, "The response.", ((JSON, _OBJECT),)),
        scope=Scope.cancel,
        errors=(408, 413, 415, 424, 429),
    ),
    _of_response(
        "DELETE",
        "",
        "delete_response",
        "Delete a response, cancelling it first.",
        Answer(200, "It is gone.", ((JSON, _OBJECT),)),
        scope=Scope.cancel,
        errors=(409, 429),
    ),
    _of_response(
        "GET",
        "/input_items",
        "list_input_items",
        "What a response was asked, as items.",
        Answer(200, "A page of items.", ((JSON, _OBJECT),)),
        _LIMIT,
        _ORDER,
        _PAGE,
        scope=Scope.read,
        errors=(),
    ),
)

_BATCH_ID = Param("id", "path", {"type": "string", "pattern": "^batch_[0-9a-f]{32}$"}, "The batch's id.")


def _batches(method: str, path: str, operation: str, about: str, *params: Param, scope: Scope, errors: Any) -> Route:
    answers = (Answer(200, "So it is.", ((JSON, _OBJECT),)),)
    body = ((JSON, _OBJECT),) if operation == "create_batch" else ()
    return Route(
        method,
        f"/v1/batches{path}",
        operation,
        _TAG,
        about,
        answers,
        params,
        body,
        needs_body=bool(body),
        errors=(*errors, 503),
        scope=scope,
        lenient=True,
    )


_BATCHES = (
    _batches(
        "POST",
        "",
        "create_batch",
        "Answer the calls in a file, one a line, and write the answers to files.",
        scope=Scope.write,
        errors=(400, 404, 408, 413, 415, 501),
    ),
    _batches(
        "GET", "", "list_batches", "List batches, newest first.", _LIMIT, _PAGE, scope=Scope.read, errors=(400, 404)
    ),
    _batches("GET", "/{id}", "get_batch", "A batch.", _BATCH_ID, scope=Scope.read, errors=(404,)),
    _batches(
        "POST",
        "/{id}/cancel",
        "cancel_batch",
        "End a batch: what is done is written out. Harmless when repeated, or too late.",
        _BATCH_ID,
        scope=Scope.cancel,
        errors=(404,),
    ),
)

OPENAI_ROUTES = (*_MODELS, *_CALLS, *_RESPONSES, *_BATCHES)
