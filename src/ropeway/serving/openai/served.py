"""`/v1/models`, and which task serves what a call names."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.worker import ModelCard
from ropeway.serving.catalogue import Served
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Reply, json_reply

__all__ = ["ModelBody", "ModelList", "ModelRoutes", "served_model"]

_ROUTES = {"chat": "chat completions and responses", "embedding": "embeddings"}


class ModelBody(msgspec.Struct, frozen=True):
    """A model. `kind` is `chat` or `embedding`; `takes` is what it can do beyond words."""

    id: str
    created: int
    owned_by: str
    kind: str
    takes: tuple[str, ...]
    object: str = "model"


class ModelList(msgspec.Struct, frozen=True):
    """Every model that may be asked for."""

    data: list[ModelBody]
    object: str = "list"


class ModelRoutes:
    """The catalogue, by models."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list_models(self, request: Request) -> Reply:
        return json_reply(ModelList([_body(model) for model in await self._parts.catalogue.models()]))

    async def get_model(self, request: Request) -> Reply:
        served = await self._parts.catalogue.model(request.path_params["id"])
        return json_reply(_body(served.model))


async def served_model(parts: Parts, id_: str, kind: str) -> Served:
    """The model of this id. Raises ModelNotFound, and InvalidRequest for one of another kind."""
    served = await parts.catalogue.model(id_)
    if served.model.kind != kind:
        raise InvalidRequest(f"model '{id_}' is for {_ROUTES[served.model.kind]}, not {_ROUTES[kind]}", param="model")
    return served


def _body(model: ModelCard) -> ModelBody:
    return ModelBody(model.id, model.created, model.owned_by, model.kind, model.takes)
