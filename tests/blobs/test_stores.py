"""What every store of blobs promises: the same suite for a folder and for S3."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blobs_support import STORES, a_store, gathered, pieces

from ropeway.blobs.base import BlobStore
from ropeway.domain.file import BlobMissing
from ropeway.testing import ManualClock

BIG = [bytes([n]) * (1 << 20) for n in range(20)]  # above what goes to S3 in one piece


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> BlobStore:
    return a_store(request.param, tmp_path, clock)


async def keys_of(store: BlobStore) -> set[str]:
    return {found.key async for found in store.scan()}


@pytest.mark.parametrize(
    "parts", [[], [b""], [b"one"], [b"a", b"", b"bc"], BIG], ids=["no", "empty", "one", "three", "big"]
)
async def test_what_is_written_is_read_back(store: BlobStore, parts: list[bytes]) -> None:
    """Bytes come back as they went in, with their size and SHA-256."""
    whole = b"".join(parts)
    blob = await store.write(pieces(*parts))
    assert (blob.size, blob.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert await gathered(store.read(blob.key)) == whole


@pytest.mark.parametrize(("start", "end"), [(0, 4), (3, 7), (6, None), (0, 0), (10, None), (9, 10)])
async def test_a_range_is_read(store: BlobStore, start: int, end: int | None) -> None:
    """From a byte up to another, or to the end."""
    blob = await store.write(pieces(b"0123456789abc"))
    assert await gathered(store.read(blob.key, start, end)) == b"0123456789abc"[start:end]


async def test_a_blob_that_is_not_there(store: BlobStore) -> None:
    """Reading it says so; deleting it is nothing; so it is with text that is no key at all."""
    gone = await store.write(pieces(b"x"))
    await store.delete(gone.key)
    for key in (gone.key, "../../etc/passwd", "", "0" * 64):
        await store.delete(key)
        with pytest.raises(BlobMissing):
            await gathered(store.read(key))
    assert await keys_of(store) == set()


async def test_equal_bytes_are_blobs_of_their_own(store: BlobStore) -> None:
    """Deleting one of two blobs with the same content leaves the other whole."""
    first, second = await store.write(pieces(b"same")), await store.write(pieces(b"same"))
    assert first.key != second.key
    assert first.sha256 == second.sha256
    await store.delete(first.key)
    assert await gathered(store.read(second.key)) == b"same"
    assert await keys_of(store) == {second.key}


async def test_the_same_content_written_and_deleted_at_the_same_time(store: BlobStore) -> None:
    """Whatever the order: each blob that was not deleted is there, whole."""
    kept: list[str] = []

    async def churn() -> None:
        for n in range(6):
            blob = await store.write(pieces(b"shared ", b"bytes"))
            if n % 2:
                await store.delete(blob.key)
            else:
                kept.append(blob.key)

    await asyncio.gather(*[churn() for _ in range(6)])
    assert [await gathered(store.read(key)) for key in kept] == [b"shared bytes"] * len(kept)
    assert await keys_of(store) == set(kept)


@pytest.mark.parametrize("before", [0, 1, 20])
async def test_a_write_that_breaks_leaves_nothing(store: BlobStore, before: int) -> None:
    """What the source raises comes out as it is, and no blob is there."""

    async def broken() -> AsyncIterator[bytes]:
        for part in BIG[:before]:
            yield part
        raise RuntimeError("the client left")

    with pytest.raises(RuntimeError, match="the client left"):
        await store.write(broken())
    assert await keys_of(store) == set()


async def test_a_write_that_is_cancelled_leaves_nothing(store: BlobStore) -> None:
    """A client that leaves in the middle of an upload costs no room."""
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG[0]
            begun.set()
            await asyncio.sleep(0)

    writing = asyncio.ensure_future(store.write(endless()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await keys_of(store) == set()


async def test_blobs_tell_their_size_and_age(store: BlobStore, clock: ManualClock) -> None:
    """A scan tells both, so that the sweep can leave alone what is young."""
    first = await store.write(pieces(b"old"))
    then_ms = clock.now_ms()
    clock.advance(s=60)
    second = await store.write(pieces(b"younger"))
    found = {stat.key: (stat.size, stat.written_at_ms) async for stat in store.scan()}
    assert found == {first.key: (3, then_ms), second.key: (7, clock.now_ms())}


async def test_a_store_belongs_to_who_claims_it_first(store: BlobStore) -> None:
    """A second engine is told whose it is; the owner is not a blob."""
    assert await store.claim("engine one") == "engine one"
    assert await store.claim("engine two") == "engine one"
    assert await store.claim("engine one") == "engine one"
    assert await keys_of(store) == set()
