"""Uploads under an `Idempotency-Key`: a repeat gives the same file, whoever died in between, and another is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_support import ENGINES, Stage, stage

from ropeway.blobs import Files
from ropeway.blobs.folder import FolderStore
from ropeway.blobs.sweep import ORPHAN_GRACE_MS, REFERENCE_GRACE_MS, Sweep
from ropeway.client import Client, SyncClient
from ropeway.domain.errors import IdempotencyKeyReused, InvalidRequest
from ropeway.domain.job import CLAIM_MS, DEFAULT_TENANT
from ropeway.domain.record import RecordKey
from ropeway.engines.memory import MemoryEngine
from ropeway.testing import ManualClock

KEY = {"idempotency-key": "tile-7"}
FORM = {"content-type": "multipart/form-data; boundary=b", **KEY}


@pytest.fixture(params=ENGINES)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path, blobs=FolderStore(tmp_path / "blobs")) as made:
        yield made


async def put(desk: Stage, content: bytes = b"tile", path: str = "/v1/files?filename=a.tif", **more: Any) -> Any:
    return await desk.http.post(path, content=content, headers={**KEY, **more.pop("headers", {})}, **more)


async def listed(desk: Stage) -> list[str]:
    return [file["id"] for file in (await desk.http.get("/v1/files")).json()["data"]]


def kept(folder: Path) -> int:
    """How many blobs there are, and parts of such."""
    blobs = [path for path in (folder / "blobs").rglob("*") if path.is_file() and path.name != "owner"]
    return len({path.stat().st_ino for path in blobs})


def form(content: bytes, purpose: str = "vision") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'
    field = b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
    return head + content + field + purpose.encode() + b"\r\n--b--\r\n"


async def test_a_repeat_gives_the_same_file(desk: Stage, tmp_path: Path) -> None:
    """Its bytes are kept once; `Idempotency-Replayed` tells the repeat."""
    first, again = await put(desk), await put(desk)
    assert (first.status_code, again.status_code) == (200, 200)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert (await listed(desk), kept(tmp_path)) == ([first.json()["id"]], 1)
    assert (await Files(desk.engine, FolderStore(tmp_path / "blobs")).usage(DEFAULT_TENANT)).files == 1


async def test_a_form_is_repeated_too(desk: Stage) -> None:
    """Whose fields may come after the bytes; another purpose is another upload."""
    first, again = [await desk.http.post("/v1/files", content=form(b"tile"), headers=FORM) for _ in range(2)]
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    other = await desk.http.post("/v1/files", content=form(b"tile", "batch"), headers=FORM)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("/v1/files?filename=a.tif", b"other bytes", {}),
        ("/v1/files?filename=b.tif", b"tile", {}),
        ("/v1/files?filename=a.tif&expires_in=60", b"tile", {}),
        ("/v1/files?filename=a.tif", b"tile", {"content-type": "image/png"}),
    ],
)
async def test_another_upload_under_the_key_is_refused(
    desk: Stage, tmp_path: Path, path: str, content: bytes, headers: dict[str, str]
) -> None:
    """Other bytes, another name, type or time to live; and nothing is kept of it."""
    first = await put(desk)
    refused = await put(desk, content, path, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert (await listed(desk), kept(tmp_path)) == ([first.json()["id"]], 1)


async def test_keys_are_the_tenants_own_and_optional(desk: Stage) -> None:
    """Without a key each upload is a file; a key that no header may have is refused."""
    one, other = await put(desk), await desk.http.post("/v1/files?filename=a.tif", content=b"tile")
    assert one.json()["id"] != other.json()["id"]
    refused = await put(desk, headers={"idempotency-key": "k" * 256})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_what_was_refused_leaves_the_key_free(desk: Stage) -> None:
    """Bytes that are not those announced claim nothing."""
    digest = hashlib.sha256(b"tile").hexdigest()
    path = f"/v1/files?filename=a.tif&sha256={digest}"
    wrong = await put(desk, b"cut", path)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "digest_mismatch")
    right, again = await put(desk, b"tile", path), await put(desk, b"tile", path)
    assert right.json() == again.json()
    late = await put(desk, b"cut", path)
    assert (late.status_code, late.json()["code"]) == (400, "digest_mismatch")


async def test_a_deleted_file_is_made_anew(desk: Stage) -> None:
    """The key names what was sent, and that is not there any more."""
    first = await put(desk)
    await desk.http.delete(first.headers["location"])
    again = await put(desk)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (200, False)
    assert (await desk.http.get(f"{again.headers['location']}/content")).content == b"tile"
    assert (await put(desk)).headers["idempotency-replayed"] == "true"


async def test_two_at_once_give_one_file(desk: Stage, tmp_path: Path) -> None:
    """Both are answered with it, whichever came first."""
    answers = await asyncio.gather(*(put(desk, b"x" * 100_000) for _ in range(5)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(await listed(desk)) == 1


@pytest.mark.parametrize("nth", [0, 1, 2, 3])
async def test_whoever_died_half_way_is_repeated_to_one_file(
    tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the claim, the reference, the books or the record: the repeat makes the file, and the sweep the rest."""
    engine = MemoryEngine(clock := ManualClock())
    await engine.open()
    files = Files(engine, FolderStore(tmp_path / "blobs", clock=clock), clock=clock)
    engine_put, calls = engine.put, 0

    async def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        answer = await engine_put(*arguments)
        if calls == nth + 1:
            raise asyncio.CancelledError
        return answer

    async with stage(wrap=lambda _: engine, blobs=files.store, clock=clock) as s:
        await files.owns_store()
        monkeypatch.setattr(engine, "put", dies)
        with pytest.raises(asyncio.CancelledError):
            await put(s)
        monkeypatch.setattr(engine, "put", engine_put)
        answer = await put(s)
        assert answer.status_code == 200
        assert await listed(s) == [answer.json()["id"]]
        assert (await s.http.get(f"{answer.headers['location']}/content")).content == b"tile"
        clock.advance(ms=max(REFERENCE_GRACE_MS, ORPHAN_GRACE_MS) + 1)
        sweep = Sweep(files, engine)
        for _ in range(3):
            await sweep.step()
        assert (await files.usage(DEFAULT_TENANT)).files == 1
        assert kept(tmp_path) == 1
    await engine.shut()


async def test_a_key_is_kept_for_a_day(tmp_path: Path) -> None:
    """As a submit's is; then it may be used for another upload."""
    clock = ManualClock()
    engine = MemoryEngine(clock)
    await engine.open()
    async with stage(wrap=lambda _: engine, blobs=FolderStore(tmp_path / "blobs"), clock=clock) as s:
        first = await put(s)
        clock.advance(ms=CLAIM_MS - 1)
        assert (await put(s, b"other")).status_code == 422
        clock.advance(ms=1)
        other = await put(s, b"other")
        assert other.json()["id"] != first.json()["id"]
        assert await engine.fetch([RecordKey("filekey", DEFAULT_TENANT, hashlib.sha256(b"tile-7").hexdigest())])
    await engine.shut()


async def test_programs_name_a_key_too(desk: Stage, tmp_path: Path) -> None:
    """`client.upload(…, idempotency_key=…)`, on an engine and over HTTP, async and blocking."""
    wire = httpx.ASGITransport(desk.gateway)
    async with (
        Client("http://gateway.test", wire=wire) as far,
        Client(desk.engine, blobs=FolderStore(tmp_path / "blobs")) as near,
    ):
        files = [await client.upload(b"tile", filename="a.tif", idempotency_key="mine") for client in (far, near, far)]
        assert len({file.id for file in files}) == 1
        for client in (far, near):
            with pytest.raises(IdempotencyKeyReused):
                await client.upload(b"other", filename="a.tif", idempotency_key="mine")
            with pytest.raises(InvalidRequest):
                await client.upload(b"other", idempotency_key="ä")


def test_blocking_programs_name_a_key_too(tmp_path: Path) -> None:
    """The same, without a loop."""
    with SyncClient(f"sqlite:{tmp_path}/jobs.db") as client:
        first, again = [client.upload(b"tile", idempotency_key="mine") for _ in range(2)]
        assert first.id == again.id
