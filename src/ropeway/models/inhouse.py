"""Tasks for models that run here, without a network: `local(app)` declares a chat and an embedding model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from ropeway.domain.chat import ChatDelta, ChatRequest, EmbeddingRequest
from ropeway.domain.errors import Fail
from ropeway.models.family import Family, declare, declare_resource, resource_name, upstream_class
from ropeway.models.llama import LlamaServer, spare_threads
from ropeway.models.minilm import DIMENSIONS, MiniLm
from ropeway.models.options import UpstreamOptions
from ropeway.models.store import CHAT_MODEL, EMBEDDING_MODEL, file_of
from ropeway.runtime.context import Context
from ropeway.runtime.registry import App, TaskSettings

__all__ = ["LocalOptions", "local"]

TIMEOUT_S = 600.0
TEXTS_LIMIT = 2_048  # of one request, as at OpenAI
BATCH_TEXTS = 32  # run at once; between two batches a cancel is heard
EMBEDDING_JOBS = 2  # at once: one computes while the next is made ready


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How local models run.

    Attributes:
        slots: answers that are generated at once; further jobs wait in the queue.
        context_tokens: of each slot, a prompt and its answer together.
        max_tokens: of an answer to a request that names no number: small models do not always find an end.
        threads: that compute; None is one less than there are cores.
        first_token_s: to have read a prompt, beside the other slots.
        gguf: another chat model's file, to be served in the place of the one that is fetched.
        takes: what the chat model can do beyond words, for the OpenAI routes; add `tools` for one that calls functions.
    """

    slots: int = 4
    context_tokens: int = 2_048
    max_tokens: int = 512
    threads: int | None = None
    first_token_s: float = 300.0
    gguf: Path | None = None
    takes: tuple[str, ...] = ("response_format", "logprobs")

    def __post_init__(self) -> None:
        if min(self.slots, self.context_tokens, self.max_tokens) < 1 or (self.threads or 1) < 1:
            raise ValueError("slots, context_tokens, max_tokens and threads are at least 1")


def local(
    app: App,
    *,
    chat: str | None = CHAT_MODEL,
    embedding: str | None = EMBEDDING_MODEL,
    name: str = "",
    options: LocalOptions | None = None,
    task: TaskSettings | None = None,
) -> Family:
    """Declare the tasks `chat` and `embed`, whose models run in the worker itself.

    Tasks of your own take the same models as the resources `chat_model` and `embedding_model`, with `_` and the
    family's name at the end where it has one: see ChatModel and EmbeddingModel.

    They need `pip install 'ropeway[local]'` and, once, `python -m ropeway.models.fetch`. A worker opens each model when
    it starts, and ends with a message that names the command when one of these is missing.

    Args:
        chat, embedding: the ids under which they are served; None leaves one out.
        name: of this family, where an application has several; its tasks are then `name.chat` and `name.embed`.
        options: sizes, and another model's file.
        task: settings of both tasks, as `@app.task` takes them.
    """
    sizes = options or LocalOptions()
    chat_task = embed_task = None
    if chat is not None:
        model_id = chat
        resource = declare_resource(app, resource_name("chat_model", name), lambda: _chat_model(sizes, model_id))
        own = cast(TaskSettings, {"timeout": TIMEOUT_S, "concurrency": sizes.slots, **(task or {})})
        chat_task = declare(app, resource, name, [chat], [], own, sizes.takes).chat
    if embedding is not None:
        resource = declare_resource(app, resource_name("embedding_model", name), lambda: _embedding_model(sizes))
        own = cast(TaskSettings, {"timeout": TIMEOUT_S, "concurrency": EMBEDDING_JOBS, **(task or {})})
        embed_task = declare(app, resource, name, [], [embedding], own).embed
    return Family(chat_task, embed_task)


@asynccontextmanager
async def _chat_model(sizes: LocalOptions, model_id: str) -> AsyncIterator[_Chat]:
    gguf = sizes.gguf or file_of(CHAT_MODEL, ".gguf")
    kind = upstream_class("ropeway[local]")
    llama = await asyncio.to_thread(
        LlamaServer, gguf, slots=sizes.slots, context_tokens=sizes.context_tokens, threads=sizes.threads
    )
    try:
        options = UpstreamOptions(concurrency=sizes.slots, first_token_s=sizes.first_token_s, http2=False)
        async with kind(llama.url, {model_id: model_id}, llama.key, options) as upstream:
            yield _Chat(upstream, sizes.max_tokens)
    finally:
        await asyncio.to_thread(llama.close)


@asynccontextmanager
async def _embedding_model(sizes: LocalOptions) -> AsyncIterator[_Embedder]:
    onnx, tokenizer = file_of(EMBEDDING_MODEL, ".onnx"), file_of(EMBEDDING_MODEL, "tokenizer.json")
    yield _Embedder(await asyncio.to_thread(MiniLm, onnx, tokenizer, sizes.threads or spare_threads()))


class _Chat:
    """The model on the loopback, with a bound on answers that name none."""

    def __init__(self, upstream: Any, max_tokens: int) -> None:
        self._upstream = upstream
        self._max_tokens = max_tokens

    async def chat(self, request: ChatRequest, ctx: Context) -> AsyncGenerator[str | ChatDelta, None]:
        if request.max_tokens is None:
            request = msgspec.structs.replace(request, max_tokens=self._max_tokens)
        async with aclosing(self._upstream.chat(request, ctx)) as pieces:
            async for piece in pieces:
                yield piece


class _Embedder:
    """The model on a thread, a batch at a time."""

    def __init__(self, model: MiniLm) -> None:
        self._model = model

    async def embed(self, request: EmbeddingRequest, ctx: Context) -> list[list[float]]:
        if len(request.input) > TEXTS_LIMIT:
            raise Fail(f"{len(request.input)} texts are more than the {TEXTS_LIMIT} of a request", code="input_invalid")
        if request.dimensions not in (None, DIMENSIONS):
            raise Fail(f"the vectors of this model have {DIMENSIONS} numbers, no fewer", code="input_invalid")
        vectors: dict[int, list[float]] = {}
        async for places, found, tokens in self._batches(request.input):
            vectors.update(zip(places, found, strict=True))
            ctx.usage(input_tokens=tokens)
        return [vectors[place] for place in range(len(request.input))]

    async def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """As EmbeddingModel has it."""
        vectors: dict[int, list[float]] = {}
        async for places, found, _ in self._batches(texts):
            vectors.update(zip(places, found, strict=True))
        return [vectors[place] for place in range(len(texts))]

    async def _batches(self, texts: Sequence[str]) -> AsyncIterator[tuple[list[int], list[list[float]], int]]:
        """The places of texts, their vectors and tokens, by batches of like length: all are padded to the longest."""
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(by_length), BATCH_TEXTS):
            places = by_length[start : start + BATCH_TEXTS]
            found, tokens = await asyncio.to_thread(self._model.embed, [texts[place] for place in places])
            yield places, found, tokens
