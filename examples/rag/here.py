"""The application with its worker in this process, for the commands that measure it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from examples.rag.documents import Passage, passages_of, read_folder
from examples.rag.settings import ANSWER, FIND, INDEX, INGEST, SHIPPED, RagSettings
from examples.rag.tasks import build
from ropeway import App, Client, Worker, WorkerOptions, connect

__all__ = ["Here", "Question", "here", "shipped_passages", "shipped_questions"]

LIMIT_S = 900.0


class Question(msgspec.Struct, frozen=True):
    """A question, the document and words of the passage that answers it, and words of the answer.

    `document` is None where the documents say nothing of it.
    """

    question: str
    document: str | None = None
    passage: str = ""
    answer: str = ""


class Here:
    """What runs: its application, its worker, and a client of both."""

    def __init__(self, app: App, worker: Worker, client: Client) -> None:
        self.app = app
        self.worker = worker
        self.client = client

    async def ingested(self) -> Any:
        """Have the documents' folder ingested, and what became of it."""
        return await (await self.client.submit(INGEST)).result(LIMIT_S)


@asynccontextmanager
async def here(own: RagSettings, *, answers: bool = False, engine_url: str = "memory:") -> AsyncIterator[Here]:
    """The application on an engine and a new store of its own; without `answers` no chat model is opened."""
    queues = (ANSWER, FIND, INDEX, INGEST) if answers else (FIND, INDEX, INGEST)
    with tempfile.TemporaryDirectory(prefix="rag-") as folder:
        app = build(msgspec.structs.replace(own, store=f"sqlite:{folder}/passages.db"))
        engine = connect(engine_url if engine_url != "sqlite:" else f"sqlite:///{folder}/jobs.db")
        await engine.open()
        worker = Worker(app, engine, WorkerOptions(name="here", queues=queues))
        working = asyncio.create_task(worker.run())
        try:
            await worker.started()
            async with Client(engine) as client:
                yield Here(app, worker, client)
        finally:
            worker.end_now()
            await working
            await engine.shut()


def shipped_passages(folder: Path = SHIPPED) -> list[Passage]:
    """The passages of our own documents, as they are ingested."""
    return [passage for document in read_folder(folder, ".").documents for passage in passages_of(document)]


def shipped_questions() -> list[Question]:
    """Our own questions about them."""
    lines = SHIPPED.with_name("questions.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Question) for line in lines]
