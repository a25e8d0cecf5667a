"""`POST /v1/embeddings`: texts to vectors, as numbers or as base64 of 32-bit floats, which SDKs ask for."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any, Literal, cast

import msgspec
from starlette.requests import Request

from ropeway.domain.chat import EmbeddingRequest
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.job import Job
from ropeway.serving.callers import tenant_of
from ropeway.serving.openai.answers import Usage, unreadable, usage_of
from ropeway.serving.openai.bodies import CallBody, converted, read_call, read_object, unknown_members
from ropeway.serving.openai.calls import Calls
from ropeway.serving.openai.chat_view import model_of
from ropeway.serving.openai.intake import Call, Intake
from ropeway.serving.openai.served import served_model
from ropeway.serving.parts import Parts
from ropeway.serving.replies import Reply

__all__ = ["BASE64_VIEW", "FLOAT_VIEW", "EmbeddingRoutes", "EmbeddingView", "embedding_call", "embedding_request"]

INPUT_LIMIT = 2048  # texts in one call, as OpenAI has it

_encode = msgspec.json.Encoder().encode


class EmbeddingBody(CallBody, frozen=True, kw_only=True):
    """What is read of the body; the rest goes to the task as `extra`."""

    input: Any
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


class _Asked(msgspec.Struct, frozen=True):
    input: list[str] = []


class _Input(msgspec.Struct, frozen=True):
    request: _Asked = _Asked()


_decode_input = msgspec.json.Decoder(_Input).decode
_decode_vectors = msgspec.json.Decoder(list[list[float]]).decode


class EmbeddingView:
    """The list of vectors, as numbers or packed."""

    def __init__(self, name: str, *, packed: bool) -> None:
        self.name = name
        self._packed = packed

    def body(self, job: Job) -> bytes:
        vectors = self._vectors(job)
        shown: list[Any] = [_packed(vector) for vector in vectors] if self._packed else list(vectors)
        usage = usage_of(job.usage) or Usage()
        return _encode(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)
                ],
                "model": model_of(job),
                "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens},
            }
        )

    @staticmethod
    def _vectors(job: Job) -> list[list[float]]:
        """One for each text. Raises JobFailed when the output is anything else."""
        try:
            vectors = _decode_vectors(job.output or "null")
            asked = len(_decode_input(job.input).request.input)
            if len(vectors) != asked:
                raise ValueError(f"{len(vectors)} vectors for {asked} texts")
        except (msgspec.MsgspecError, ValueError) as error:
            raise unreadable(job.id, error) from error
        return vectors


FLOAT_VIEW = EmbeddingView("embedding.list", packed=False)
BASE64_VIEW = EmbeddingView("embedding.list.base64", packed=True)


class EmbeddingRoutes:
    """Embeddings."""

    def __init__(self, parts: Parts, intake: Intake, calls: Calls) -> None:
        self._parts = parts
        self._intake = intake
        self._calls = calls

    async def create_embedding(self, request: Request) -> Reply:
        call = await embedding_call(self._parts, tenant_of(request), await read_call(request, self._parts))
        self._intake.check_room(request)
        admitted = await self._intake.admit(request, call)
        is_packed = cast(EmbeddingBody, call.body).encoding_format == "base64"
        return await self._calls.finish(request, admitted, (BASE64_VIEW if is_packed else FLOAT_VIEW).name)


async def embedding_call(parts: Parts, tenant: str, raw: bytes) -> Call:
    """The call that this body is. Raises InvalidRequest, ModelNotFound."""
    body, asked = embedding_request(read_object(raw))
    served = await served_model(parts, body.model, "embedding")
    if asked.dimensions is not None and "dimensions" not in served.model.takes:
        raise InvalidRequest(f"model '{body.model}' has vectors of one length only", param="dimensions")
    return Call(raw, body, served, asked)


def embedding_request(raw: dict[str, Any]) -> tuple[EmbeddingBody, EmbeddingRequest]:
    """The body as it was read, and the request that it makes. Raises InvalidRequest; `param` names the member."""
    body = converted(raw, EmbeddingBody)
    if body.dimensions is not None and body.dimensions < 1:
        raise InvalidRequest(f"dimensions is at least 1, not {body.dimensions}", param="dimensions")
    asked = EmbeddingRequest(
        model=body.model,
        input=_texts(body.input),
        dimensions=body.dimensions,
        user=body.user,
        extra=unknown_members(raw, EmbeddingBody),
    )
    return body, asked


def _texts(said: Any) -> list[str]:
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, list) or not texts:
        raise InvalidRequest("input is a string or a list of strings, at least one", param="input")
    if any(isinstance(text, int | list) for text in texts):
        raise InvalidRequest("input as token numbers is not read here: send text", param="input")
    if len(texts) > INPUT_LIMIT:
        raise InvalidRequest(f"input has at most {INPUT_LIMIT} texts, not {len(texts)}", param="input")
    for n, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise InvalidRequest("a text is a string that is not empty", param=f"input[{n}]")
    return texts


def _packed(vector: list[float]) -> str:
    """32-bit floats, the least byte first, as base64."""
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
