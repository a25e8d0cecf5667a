"""Files by OpenAI's own SDK, as its users write it: `client.files`."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import openai
from ropeway.blobs.folder import FolderStore
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway, GatewayOptions


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    engine = MemoryEngine()
    await engine.open()
    options = GatewayOptions(allowed_hosts=None, max_file_bytes=100_000)
    wire = httpx.ASGITransport(Gateway(engine, options, blobs=FolderStore(tmp_path / "blobs")))
    http: Any = httpx.AsyncClient(transport=wire)
    async with openai.AsyncOpenAI(api_key="any", base_url="http://gateway.test/v1", http_client=http) as made:
        yield made
    await engine.shut()


async def test_a_file_by_the_sdk(client: openai.AsyncOpenAI) -> None:
    """Created, seen, fetched, deleted."""
    content = b'{"custom_id": "1"}\n' * 1000
    file = await client.files.create(file=("batch.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(content), "batch.jsonl", "batch", "processed")
    assert await client.files.retrieve(file.id) == file
    fetched = (await client.files.content(file.id)).content
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(content).digest()
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        await client.files.retrieve(file.id)
    assert gone.value.code == "file_not_found"


async def test_a_list_goes_on_by_itself(client: openai.AsyncOpenAI) -> None:
    """The SDK asks for the next page with what the last one told."""
    made = {(await client.files.create(file=io.BytesIO(b"x"), purpose="vision")).id for _ in range(5)}
    await client.files.create(file=io.BytesIO(b"x"), purpose="batch")
    assert {file.id async for file in client.files.list(purpose="vision", limit=2)} == made


async def test_a_file_that_expires(client: openai.AsyncOpenAI) -> None:
    """As the SDK says it: a form's fields with brackets in their names."""
    after = {"anchor": "created_at", "seconds": 3600}
    file = await client.files.create(file=b"x", purpose="user_data", expires_after=after)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 3600


async def test_a_refusal_is_the_sdks_own_error(client: openai.AsyncOpenAI) -> None:
    """Too large, and told so; not sent again."""
    with pytest.raises(openai.APIStatusError) as refused:
        await client.files.create(file=b"x" * 100_001, purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (413, "payload_too_large")
