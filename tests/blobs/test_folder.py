"""The folder of blobs: who may look into it, what is planted in it, a full disk, and what a crash leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from blobs_support import gathered, pieces

from ropeway.blobs.base import Blob
from ropeway.blobs.draft import Draft
from ropeway.blobs.folder import FolderStore
from ropeway.domain.file import BlobMissing, FilesUnavailable, StorageFull
from ropeway.testing import ManualClock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "blobs"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(root, clock=ManualClock())


def files_in(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


def modes_in(root: Path) -> tuple[set[int], set[int]]:
    """The rights of the folders, and of the files."""
    everything = [root, *root.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in everything}
    return {modes[path] for path in everything if path.is_dir()}, {modes[path] for path in files_in(root)}


def shelves_in(root: Path) -> list[Path]:
    return list(root.glob("??/*"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def lead_astray(path: Path, target: Path) -> None:
    """Move what is at `path` to `target`, and leave a symlink to it."""
    path.rename(target)
    path.symlink_to(target)


def plant_draft(root: Path, name: str) -> None:
    (root / "drafts" / name).write_bytes(b"half of it")


def the_file(root: Path) -> Path:
    (path,) = files_in(root)
    return path


async def test_only_its_owner_may_look(store: FolderStore, root: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask allows."""
    before = os.umask(0)
    try:
        await store.write(pieces(b"secret"))
    finally:
        os.umask(before)
    assert modes_in(root) == ({0o700}, {0o600})


async def test_equal_bytes_take_their_room_once(store: FolderStore, root: Path) -> None:
    """The second blob of a content is a link to the first, and bytes go with the last of them."""
    blobs = [await store.write(pieces(b"the same")) for _ in range(3)]
    assert {path.stat().st_ino for path in files_in(root)} == {files_in(root)[0].stat().st_ino}
    assert files_in(root)[0].stat().st_nlink == 3
    for blob in blobs:
        await store.delete(blob.key)
    assert files_in(root) == []
    assert shelves_in(root) == []


async def test_without_hard_links_each_has_its_own(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that has none, or no more of them, costs room and nothing else."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    first = await store.write(pieces(b"the same"))
    monkeypatch.setattr(os, "link", refuse)
    second = await store.write(pieces(b"the same"))
    assert len({path.stat().st_ino for path in files_in(root)}) == 2
    assert await gathered(store.read(first.key)) == await gathered(store.read(second.key)) == b"the same"


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
async def test_a_full_disk_is_told_and_leaves_nothing(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Wherever the system says that there is no room."""

    real_open = os.open

    def full(*args: Any, **kwargs: Any) -> int:
        if call == "open" and not args[1] & os.O_CREAT:
            return real_open(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(StorageFull, match="No space left"):
            await store.write(pieces(b"too much"))
    assert files_in(root) == []
    assert descriptors() == before
    assert await store.write(pieces(b"fits again"))
    assert descriptors() == before


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """What stands in the way is named."""
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(FilesUnavailable, match="blobs"):
        await FolderStore(tmp_path / "blobs").write(pieces(b"x"))


async def test_a_symlink_leads_nowhere(store: FolderStore, root: Path, tmp_path: Path) -> None:
    """Neither as the blob, nor as a folder on the way to it, nor as the store itself."""
    secret = tmp_path / "secret"
    secret.write_text("not for you")
    blob = await store.write(pieces(b"mine"))
    path = the_file(root)

    path.unlink()
    path.symlink_to(secret)
    with pytest.raises((BlobMissing, FilesUnavailable)):
        await gathered(store.read(blob.key))
    await store.delete(blob.key)
    assert secret.read_text() == "not for you"

    lead_astray(root, tmp_path / "elsewhere")
    with pytest.raises(FilesUnavailable):
        await store.write(pieces(b"through a link"))


async def test_a_folder_on_the_way_that_is_a_symlink(store: FolderStore, root: Path, tmp_path: Path) -> None:
    """A shelf that leads out of the store is not entered."""
    blob = await store.write(pieces(b"mine"))
    lead_astray(root / blob.key[:2], tmp_path / "outside")
    with pytest.raises((BlobMissing, FilesUnavailable)):
        await gathered(store.read(blob.key))
    with pytest.raises(FilesUnavailable):
        await store.write(pieces(b"mine"))


async def test_what_a_crash_left_is_tidied(root: Path) -> None:
    """The draft of a process that died in the middle of a write goes; one that is being written stays."""
    clock = ManualClock()
    store = FolderStore(root, clock=clock)
    await store.write(pieces(b"whole"))
    plant_draft(root, f"{clock.now_ms():012x}-0123456789abcdef")
    clock.advance(s=3600)
    tidied: list[int] = []

    async def slowly() -> AsyncIterator[bytes]:
        yield b"under way"
        tidied.append(await store.tidy(clock.now_ms() - 1))

    blob = await store.write(slowly())
    assert tidied == [1]
    assert await gathered(store.read(blob.key)) == b"under way"
    assert len(files_in(root)) == 2


async def test_a_write_that_is_cancelled_at_its_very_end(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blob was there already, and nobody will ever hear of it: it goes again."""
    publish, there, go_on = Draft.publish, threading.Event(), threading.Event()

    def slowly(self: Draft, stamp: str) -> Blob:
        blob = publish(self, stamp)
        there.set()
        go_on.wait(20)
        return blob

    monkeypatch.setattr(Draft, "publish", slowly)
    writing = asyncio.ensure_future(store.write(pieces(b"too late")))
    await asyncio.to_thread(there.wait, 20)
    assert len(files_in(root)) == 1
    writing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert files_in(root) == []


async def test_a_content_folder_that_vanishes_under_the_write(
    store: FolderStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last blob of a content may be deleted just before another is put beside it: it is put there all the same."""
    rename = os.rename
    folders: list[Path] = []

    def pulled_away(*args: object, **kwargs: object) -> None:
        if not folders:
            folders.extend(shelves_in(root))
            folders[0].rmdir()
        rename(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", pulled_away)
    blob = await store.write(pieces(b"persistent"))
    assert len(folders) == 1
    assert await gathered(store.read(blob.key)) == b"persistent"
