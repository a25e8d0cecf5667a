"""The work: `ingest` a folder, `answer` a question, and what both are made of. `ropeway worker examples.rag.tasks:app`.

    find (batched over all who ask) --> answer: the chat model --> tokens, then the answer with its sources
    ingest --> index (batched over all passages) --> the document is whole

A worker opens the embedding model, the store and the chat model once, when it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Annotated

import msgspec

from examples.rag.documents import Passage
from examples.rag.ingesting import Ingested, Ingesting
from examples.rag.prompt import Source, question_for, source_of
from examples.rag.settings import ANSWER, FIND, INDEX, INGEST, RagSettings, settings
from examples.rag.store import Embedded, PassageStore, open_store
from ropeway import App, Batch, Context, Fail, Retry, Task, given
from ropeway.models import ChatModel, EmbeddingModel, LocalOptions, local, upstream

__all__ = ["Answer", "Query", "app", "build"]

QUERY_LIMIT = 2_000  # characters
UNKNOWN = "The documents say nothing about that."
RETRY = Retry(max_attempts=4, base_s=0.5, cap_s=10)
ANSWER_S = 300.0
INGEST_S = 3_600.0
CALL_S = 300.0  # of the embedding model, for a batch
UPSTREAM_AT_ONCE = 50

Query = Annotated[str, msgspec.Meta(min_length=1, max_length=QUERY_LIMIT, pattern=r"\S")]


class Answer(msgspec.Struct, frozen=True):
    """What a question comes to. `sources`: the nearest first; `model` is None where none was asked."""

    answer: str
    sources: tuple[Source, ...]
    model: str | None


def build(own: RagSettings, models: Callable[[App, RagSettings], None] | None = None) -> App:
    """The application for these settings.

    `models` declares the resources `embedding_model`, and `chat_model` or `upstream`, in the place of the real ones.
    """
    app = App()
    (models or _declare_models)(app, own)
    _declare_resources(app, own)
    _declare_find(app, own)
    _declare_answer(app, own)
    _declare_ingest(app, own, _declare_index(app, own))
    return app


def _declare_models(app: App, own: RagSettings) -> None:
    sizes = LocalOptions(slots=own.slots, context_tokens=1_024, threads=own.threads or None)
    local(app, chat=None if own.upstream else own.model, options=sizes)
    if own.upstream:
        upstream(app, own.upstream, key=own.key or None, models=[own.model])


def _declare_resources(app: App, own: RagSettings) -> None:
    @app.resource
    def store() -> Iterator[PassageStore]:
        opened = open_store(own.store)
        yield opened
        opened.close()

    app.resource(_llm_of_upstream() if own.upstream else _llm_of_worker())


def _llm_of_upstream() -> Callable[[ChatModel], ChatModel]:
    def llm(upstream: ChatModel) -> ChatModel:
        return upstream

    return llm


def _llm_of_worker() -> Callable[[ChatModel], ChatModel]:
    def llm(chat_model: ChatModel) -> ChatModel:
        return chat_model

    return llm


def _declare_find(app: App, own: RagSettings) -> None:
    @app.task(name=FIND, queue=FIND, priority="high", timeout=CALL_S, retry=RETRY, batch=Batch(max_size=own.batch))
    async def find(
        query: list[Query],
        *,
        ctxs: list[Context] = given,
        embedding_model: EmbeddingModel = given,
        store: PassageStore = given,
    ) -> list[list[Source]]:
        """The passages of each tenant that are nearest to its question, with the sentences that say most of it."""
        vectors = await embedding_model.vectors(query)

        def search() -> list[list[Source]]:
            return [
                [source_of(asked, vector, hit) for hit in store.search(ctx.tenant, vector, own.found)]
                for ctx, asked, vector in zip(ctxs, query, vectors, strict=True)
            ]

        return await asyncio.to_thread(search)


def _declare_index(app: App, own: RagSettings) -> Task[..., object, str]:
    @app.task(name=INDEX, queue=INDEX, priority="low", timeout=CALL_S, retry=RETRY, batch=Batch(max_size=own.batch))
    async def index(
        passage: list[Passage],
        *,
        ctxs: list[Context] = given,
        embedding_model: EmbeddingModel = given,
        store: PassageStore = given,
    ) -> list[str]:
        """Embed passages, whoever they are of, and store them. What comes back are their ids."""
        texts = [f"{one.title}: {part}" for one in passage for part in (one.text, *one.sentences)]
        vectors = iter(await embedding_model.vectors(texts))
        rows = [
            Embedded(ctx.tenant, one, next(vectors), [next(vectors) for _ in one.sentences])
            for ctx, one in zip(ctxs, passage, strict=True)
        ]
        await asyncio.to_thread(store.put, rows)
        return [one.id for one in passage]

    return index


def _declare_answer(app: App, own: RagSettings) -> None:
    at_once = UPSTREAM_AT_ONCE if own.upstream else own.slots

    @app.task(name=ANSWER, queue=ANSWER, timeout=ANSWER_S, retry=RETRY, concurrency=at_once)
    async def answer(query: Query, sources: list[Source], *, ctx: Context = given, llm: ChatModel = given) -> Answer:
        """Answer a question from what was found. Its words go out as they are written, its sources with the end."""
        if not sources:
            raise Fail("no documents have been ingested yet", code="no_documents")
        if sources[0].score < own.min_score:
            ctx.emit(UNKNOWN)
            return Answer(UNKNOWN, tuple(sources), None)
        ctx.progress(0.3, "answer")
        told = [msgspec.structs.replace(source, given=True) for source in sources[: own.given]]
        said = []
        async with aclosing(_words(llm, own, query, told, ctx)) as words:
            async for word in words:
                ctx.emit(word)
                said.append(word)
        ctx.progress(1.0, "answer")
        return Answer("".join(said).strip(), (*told, *sources[own.given :]), own.model)


async def _words(
    llm: ChatModel, own: RagSettings, query: str, told: list[Source], ctx: Context
) -> AsyncGenerator[str, None]:
    async with aclosing(llm.chat(question_for(own, query, told), ctx)) as pieces:
        async for piece in pieces:
            if word := piece if isinstance(piece, str) else piece.content:
                yield word


def _declare_ingest(app: App, own: RagSettings, index: Task[..., object, str]) -> None:
    @app.task(name=INGEST, queue=INGEST, timeout=INGEST_S, retry=RETRY, max_snoozes=1_000)
    async def ingest(folder: str = ".", *, ctx: Context = given, store: PassageStore = given) -> Ingested:
        """Read a folder below the documents' root, and embed and store what is new in it."""
        return await Ingesting(own, index, store, ctx).run(folder)


app = build(settings())
