"""The RAG example with its real models, as its README starts it: from a folder to an answer with its sources."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.rag.settings import SHIPPED

from ropeway.models import ModelUnavailable
from ropeway.models.store import CHAT_MODEL, EMBEDDING_MODEL, file_of

ROOT = Path(__file__).parent.parent.parent
START_S = 90.0
PATIENCE_S = 110.0  # two cores, others on them, and a model that reads some hundred words

pytestmark = pytest.mark.slow


def missing() -> str:
    """Why there are no models here; '' when there are."""
    try:
        for model, suffix in ((CHAT_MODEL, ".gguf"), (EMBEDDING_MODEL, ".onnx")):
            file_of(model, suffix)
    except ModelUnavailable as error:
        return str(error)
    return ""


@asynccontextmanager
async def started(home: Path, *flags: str) -> AsyncIterator[httpx.AsyncClient]:
    """`python -m examples.rag`, and a client of it. It is asked to leave at the end, and leaves without a fault."""
    command = [sys.executable, "-m", "examples.rag", "--port", "0", "--engine", f"sqlite:///{home}/rag.db", *flags]
    with (home / "log").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=said, env={**os.environ, "RAG_THREADS": "1"}
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        assert line, (home / "log").read_text()[-4000:]
        async with httpx.AsyncClient(base_url=json.loads(line)["url"], timeout=PATIENCE_S) as http:
            yield http
    finally:
        if process.returncode is None:
            process.terminate()
        code = await process.wait()
    assert code == 0, (home / "log").read_text()[-4000:]


async def followed(http: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """All events of a job, until it has ended."""
    async with http.stream("GET", url, headers={"accept": "application/x-ndjson"}) as stream:
        return [json.loads(line) async for line in stream.aiter_lines() if line.startswith("{")]


@pytest.mark.skipif(bool(missing()) and "CI" not in os.environ, reason=missing())
async def test_from_a_folder_to_an_answer(home: Path) -> None:
    """One command; a folder is read, split, embedded and stored, and a question is answered from the right passage.

    The model is small and its words are its own: what is asked of it is that there are some, and that they come one
    after the other. The right passage, and the sentence that holds the fact, are no matter of luck.
    """
    documents = home / "documents"
    documents.mkdir()
    for name in ("drive.md", "tickets.md", "grips.md", "passengers.md"):
        shutil.copy(SHIPPED / name, documents)
    async with started(home, "--documents", str(documents), "--store", f"sqlite:{home}/passages.db") as http:
        ingest = (await http.post("/ingest", json={})).json()
        events = await followed(http, ingest["events_url"])
        assert events[-1]["type"] == "job.succeeded", events[-1]
        assert events[-1]["data"]["output"]["passages"] == 12
        assert {"read", "embed", "store"} <= {one["data"].get("step") for one in events if one["type"] == "progress"}

        asked = await http.post("/chat", json={"query": "How strong is the main motor?"})
        assert asked.status_code == 202
        strange = (await http.post("/chat", json={"query": "Who painted the Mona Lisa?"})).json()
        events = await followed(http, asked.json()["events_url"])
        words = [one["data"]["delta"] for one in events if one["type"] == "output.delta"]
        status = (await http.get(asked.json()["status_url"])).json()
        assert (status["status"], status["model"]) == ("succeeded", "smollm2-135m"), status
        assert "".join(words).strip() == status["answer"]
        assert len(words) > 2
        source = status["sources"][0]
        assert (source["document"], source["given"]) == ("drive.md", True)
        assert "820 kilowatts" in source["quote"]

        await followed(http, strange["events_url"])
        status = (await http.get(strange["status_url"])).json()
        assert status["answer"] == "The documents say nothing about that."
