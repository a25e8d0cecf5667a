"""Tasks that serve models: whether their signature is that of a chat or an embedding task, said at declaration."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.runtime.signature import EMPTY, Signature

__all__ = ["check_models"]

_REQUESTS: dict[str, type[msgspec.Struct]] = {"chat": ChatRequest, "embedding": EmbeddingRequest}
_FORMS = {
    "chat": "`async def {task}(request: ChatRequest, *, ctx: Context) -> AsyncIterator[str | ChatDelta]`",
    "embedding": "`def {task}(request: EmbeddingRequest, *, ctx: Context) -> list[list[float]]`",
}
_PIECES = (str, ChatDelta)
_VECTORS = (Any, list[list[float]])


def check_models(task: str, signature: Signature, models: Sequence[ModelCard], others: Iterable[TaskCard]) -> None:
    """Nothing, when a task of this signature can serve `models` beside the `others` of its application.

    Raises TypeError when it cannot be a task of that kind, ValueError for an id that is taken.
    """
    if not models:
        return
    if not all(isinstance(model, ModelCard) for model in models):
        raise TypeError(f"task '{task}': models are given as [ModelCard('its-id', 'chat')]")
    kinds = {model.kind for model in models}
    if len(kinds) > 1:
        raise TypeError(f"task '{task}' serves models of two kinds, {' and '.join(sorted(kinds))}: make it two tasks")
    (kind,) = kinds
    fault = _fault_of_input(signature, _REQUESTS[kind]) or _fault_of_output(signature, kind)
    if fault is not None:
        raise TypeError(f"task '{task}' serves {kind} models, but {fault}; write {_FORMS[kind].format(task=task)}")
    _check_ids(task, models, others)


def _fault_of_input(signature: Signature, request: type[msgspec.Struct]) -> str | None:
    fields = {field.name: field for field in signature.fields}
    named = fields.pop("request", None)
    if named is None:
        return "takes no `request`"
    if named.annotation is not request:
        return f"its `request` is not a {request.__name__}"
    wanting = [field.name for field in fields.values() if field.default is EMPTY]
    if wanting:
        return f"takes '{wanting[0]}', which nobody gives: a default, or a resource of that name, would"
    return None


def _fault_of_output(signature: Signature, kind: str) -> str | None:
    if kind == "embedding":
        if signature.kind.streams:
            return "is a generator"
        return None if signature.returns in _VECTORS else f"returns {_named(signature.returns)}"
    if not signature.kind.streams:
        return "is no generator: a chat is streamed, in one piece if need be"
    strange = [piece for piece in _alternatives(signature.returns) if piece not in (Any, *_PIECES)]
    return f"yields {_named(strange[0])}" if strange else None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _named(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _check_ids(task: str, models: Sequence[ModelCard], others: Iterable[TaskCard]) -> None:
    taken = {model.id: other.name for other in others for model in other.models}
    for model in models:
        if model.id in taken:
            raise ValueError(
                f"task '{task}': model '{model.id}' is served by '{taken[model.id]}' already: an id names one model"
            )
        taken[model.id] = task
