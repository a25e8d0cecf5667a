"""What the tests of the RAG example share: it, served in this process, with models that are none."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from examples.rag.settings import RagSettings
from examples.rag.store.base import DIMENSIONS
from examples.rag.tasks import build
from examples.rag.web import RagWeb

from ropeway import App, ChatDelta, ChatRequest, Context, GatewayOptions, Worker, WorkerOptions, connect
from ropeway.engines.base import Engine
from ropeway.models import upstream

__all__ = ["PATIENCE_S", "Models", "Rag", "document", "eventually", "rag"]

PATIENCE_S = 30.0


class Models:
    """Stand-ins: a text's vector follows from its words, and the chat model repeats what it was told.

    `embedded` are the texts that were embedded, call by call; `asked` what the chat model was asked. While `open` is
    not set, neither answers.
    """

    def __init__(self) -> None:
        self.embedded: list[list[str]] = []
        self.asked: list[ChatRequest] = []
        self.open = asyncio.Event()
        self.open.set()

    @property
    def texts(self) -> list[str]:
        """All that were embedded."""
        return [text for call in self.embedded for text in call]

    async def vectors(self, texts: Sequence[str], /) -> list[list[float]]:
        self.embedded.append(list(texts))
        await self.open.wait()
        return [_vector(text) for text in texts]

    async def chat(self, request: ChatRequest, ctx: Context, /) -> AsyncGenerator[str | ChatDelta, None]:
        self.asked.append(request)
        await self.open.wait()
        for word in re.findall(r"\S+\s*", str(request.messages[-1]["content"]).splitlines()[0]):
            yield word
        ctx.usage(output_tokens=1)

    def declare(self, app: App, own: RagSettings) -> None:
        """As the real ones are declared; an upstream is the real one."""

        @app.resource
        def embedding_model() -> Models:
            return self

        if own.upstream:
            upstream(app, own.upstream, models=[own.model])
            return

        @app.resource
        def chat_model() -> Models:
            return self


def _vector(text: str) -> list[float]:
    """The more words two texts share, the nearer are their vectors."""
    vector = [0.0] * DIMENSIONS
    for word in set(re.findall(r"[a-z0-9]+", text.lower())):
        vector[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big") % DIMENSIONS] += 1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


class Rag:
    """The example, asked over ASGI."""

    def __init__(self, http: httpx.AsyncClient, engine: Engine, app: App) -> None:
        self.http = http
        self.engine = engine
        self.app = app

    async def chat(self, query: str, **arguments: Any) -> str:
        """The id of a question's job."""
        return await self._posted("/chat", {"query": query}, **arguments)

    async def ingest(self, folder: str | None = None, **arguments: Any) -> str:
        """The id of a folder's job."""
        return await self._posted("/ingest", {} if folder is None else {"folder": folder}, **arguments)

    async def _posted(self, path: str, body: dict[str, Any], **arguments: Any) -> str:
        answer = await self.http.post(path, json=body, **arguments)
        assert answer.status_code == 202, answer.text
        told = answer.json()
        assert (told["status"], told["status_url"]) == ("queued", f"/job-status?job_id={told['job_id']}")
        return str(told["job_id"])

    async def status(self, job_id: str, **arguments: Any) -> dict[str, Any]:
        answer = await self.http.get("/job-status", params={"job_id": job_id}, **arguments)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=dict[str, Any])

    async def ended(self, job_id: str, **arguments: Any) -> dict[str, Any]:
        """How a job stands once it has ended: waited for by the gateway's own long-poll."""
        answer = await self.http.get(f"/v1/jobs/{job_id}", params={"wait": PATIENCE_S}, **arguments)
        assert answer.status_code == 200, answer.text
        return await self.status(job_id, **arguments)

    async def answered(self, query: str, **arguments: Any) -> dict[str, Any]:
        """A question, and what it came to."""
        return await self.ended(await self.chat(query, **arguments), **arguments)

    async def ingested(self, folder: str | None = None, **arguments: Any) -> dict[str, Any]:
        """A folder, and what it came to."""
        status = await self.ended(await self.ingest(folder, **arguments), **arguments)
        assert status["status"] == "succeeded", status
        ingested: dict[str, Any] = status["ingested"]
        return ingested

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker in this process. It leaves at once, and gives back what it has."""
        worker = Worker(self.app, self.engine, WorkerOptions(name="worker"))
        running = asyncio.create_task(worker.run())
        await worker.started()
        try:
            yield worker
        finally:
            worker.end_now()
            await running


@asynccontextmanager
async def rag(folder: Path, models: Models, *, worker: bool = True, **settings: Any) -> AsyncIterator[Rag]:
    """The example on a memory engine, over the documents in `folder / "documents"`."""
    (folder / "documents").mkdir(exist_ok=True)
    places = {"documents": str(folder / "documents"), "store": f"sqlite:{folder / 'passages.db'}"}
    own = RagSettings(**{**places, **settings})
    app = build(own, models.declare)
    engine = connect("memory:")
    await engine.open()
    runs = WorkerOptions(name="worker") if worker else None
    web = RagWeb(engine, own, GatewayOptions(), worker=runs, tasks=app)
    await web.start()
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(web), base_url="http://127.0.0.1", timeout=PATIENCE_S + 5
        ) as http:
            yield Rag(http, engine, app)
    finally:
        await web.stop()
        await engine.shut()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - of what is not ours to tell when it does
            await asyncio.sleep(0.01)


def document(folder: Path, name: str, text: str) -> Path:
    """A text among the documents."""
    path = folder / "documents" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
