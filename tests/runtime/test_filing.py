"""Files in tasks: inputs that are files, outputs too large for a row, artifacts; and what is left of them after."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime_support import Stage, eventually, stage

from ropeway.blobs import About, Files
from ropeway.blobs.folder import FolderStore
from ropeway.blobs.handle import File
from ropeway.domain.errors import InputInvalid
from ropeway.domain.file import FilesUnavailable, StorageFull, reference
from ropeway.domain.job import DEFAULT_TENANT
from ropeway.domain.lifecycle import State
from ropeway.runtime import App, Context
from ropeway.runtime.outputs import INLINE_BYTES, TRIES

app = App()


@app.task
async def by_path(image: Path, times: int = 1) -> list[Any]:
    content = image.read_bytes()  # noqa: ASYNC240
    image.write_bytes(b"changed")  # noqa: ASYNC240 - it is the attempt's own
    return [content.decode() * times, image.suffix]


@app.task
def by_path_in_a_thread(image: Path) -> str:
    return image.read_text()


@app.task
async def in_hand(images: list[File]) -> list[Any]:
    return [[image.size, (await image.read()).decode(), image.name] for image in images]


@app.task
def in_hand_in_a_thread(image: File) -> str:
    return image.wait_for_path().read_text()


@app.task
async def in_place(text: str, raw: bytes, numbers: list[int]) -> list[Any]:
    return [text, raw.decode(), sum(numbers)]


@app.task
async def large(size: int) -> str:
    return "x" * size


@app.task
async def large_items(count: int) -> AsyncIterator[dict[str, str]]:
    for n in range(count):
        yield {"n": str(n) * 100}


@app.task
def large_in_a_thread(size: int) -> str:
    return "x" * size


@app.task
async def makes(ctx: Context) -> File:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a,b\n"
        yield b"1,2\n"

    table = await ctx.artifact("table.csv", pieces())
    ctx.artifact("later.bin", b"not awaited", "application/x-later")
    return table


@app.task
def makes_in_a_thread(ctx: Context) -> str:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    scratch = Path(tempfile.mkdtemp()) / "plot.png"
    scratch.write_bytes(b"pixels")
    ctx.artifact("plot.png", pieces())
    return ctx.artifact("plot.png", scratch).file.id


@app.task
async def makes_nonsense(ctx: Context) -> None:
    ctx.artifact("a.txt", "text")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where attempts have their copies."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Desk:
    """A stage with files."""

    def __init__(self, made: Stage, files: Files) -> None:
        self.stage = made
        self.files = files

    async def upload(self, content: bytes, about: About | str = "") -> dict[str, str]:
        """A file, as it stands in an input."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        about = About(about) if isinstance(about, str) else about
        file = await self.files.create(DEFAULT_TENANT, chunks(), about)
        return reference(file.id)

    async def content(self, id_: str) -> bytes:
        file = await self.files.get(DEFAULT_TENANT, id_)
        return b"".join([block async for block in self.files.read(file)])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = FolderStore(tmp_path / "blobs")
    async with stage(app, blobs=store) as made:
        await made.work()
        yield Desk(made, Files(made.engine, store, clock=made.clock))


# -- inputs


async def test_a_path_is_a_local_copy(desk: Desk, scratch: Path) -> None:
    """With the suffix of its name, free to be changed, and gone when the task has ended; the file is as it was."""
    image = await desk.upload(b"pixels", "../tile.tif")
    assert await desk.stage.output("by_path", image=image, times=2) == ["pixelspixels", ".tif"]
    assert await desk.stage.output("by_path_in_a_thread", image=image) == "pixels"
    await eventually(lambda: list(scratch.iterdir()) == [], "the copies are gone")
    assert await desk.content(image["$file"]) == b"pixels"


async def test_a_file_in_hand_comes_when_it_is_asked_for(desk: Desk, scratch: Path) -> None:
    """Its name and size are there at once; it may stand deeper in the input too."""
    images = [await desk.upload(b"first", "a.png"), await desk.upload(b"second", "b.png")]
    assert await desk.stage.output("in_hand", images=images) == [[5, "first", "a.png"], [6, "second", "b.png"]]
    assert await desk.stage.output("in_hand_in_a_thread", image=images[0]) == "first"
    await eventually(lambda: list(scratch.iterdir()) == [], "the copies are gone")


async def test_what_is_too_large_for_an_input_is_read_in_place(desk: Desk) -> None:
    """Text, bytes, and JSON of the parameter's type."""
    fields = {
        "text": await desk.upload("größer".encode()),
        "raw": await desk.upload(b"bytes"),
        "numbers": await desk.upload(b"[1, 2, 3]"),
    }
    assert await desk.stage.output("in_place", **fields) == ["größer", "bytes", 6]


async def test_a_file_that_is_no_such_value(desk: Desk) -> None:
    """The job fails as with a wrong input, and says where."""
    good = await desk.upload(b"x")
    error = await desk.stage.error("in_place", text=good, raw=good, numbers=await desk.upload(b'["one"]'))
    assert error.code == "input_invalid"
    assert "/numbers/0" in error.message


async def test_a_file_that_is_not_there(desk: Desk) -> None:
    """The job fails, and says which."""
    gone = await desk.upload(b"x")
    await desk.files.delete(DEFAULT_TENANT, gone["$file"])
    error = await desk.stage.error("by_path", image=gone)
    assert (error.code, error.retryable) == ("input_invalid", False)
    assert gone["$file"] in error.message
    error = await desk.stage.error("by_path_in_a_thread", image=gone)
    assert error.code == "input_invalid"


async def test_a_file_that_expired_since_the_submit(desk: Desk) -> None:
    """It is held for the job: only those who ask for it now find nothing."""
    image = await desk.upload(b"pixels", About(ttl_s=60))
    desk.stage.clock.advance(s=61)
    assert await desk.stage.output("by_path", image=image) == ["pixels", ""]


async def test_a_wrong_input_beside_a_file(desk: Desk) -> None:
    """The other members are checked as ever."""
    error = await desk.stage.error("by_path", image=await desk.upload(b"x"), times="many")
    assert error.code == "input_invalid"
    assert "/times" in error.message


async def test_a_cancel_while_a_file_comes(desk: Desk, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    """The job is cancelled, its task never runs, and the half of a copy goes."""
    reading, go_on = asyncio.Event(), asyncio.Event()
    read_on: list[None] = []

    async def slowly(*_: object) -> AsyncIterator[bytes]:
        yield b"a"
        reading.set()
        await go_on.wait()
        yield b"b"
        read_on.append(None)

    image = await desk.upload(b"pixels")
    monkeypatch.setattr(FolderStore, "read", slowly)
    for task in ("by_path", "by_path_in_a_thread"):
        reading.clear()
        go_on.clear()
        job_id = await desk.stage.submit(task, image=image)
        await reading.wait()
        await desk.stage.cancel(job_id)
        await eventually(lambda: all(run.reason for run in desk.stage.crew.executor.running), "it was asked to stop")
        go_on.set()
        assert (await desk.stage.ended(job_id)).state is State.cancelled
    await eventually(lambda: list(scratch.iterdir()) == [], "the copies are gone")
    assert read_on == []
    assert desk.stage.crew.pool.counts.abandoned == 0


async def test_a_worker_without_a_store(tmp_path: Path) -> None:
    """Says what is missing."""
    async with stage(app) as made:
        await made.work()
        error = await made.error("by_path", image=reference(f"file_{'0' * 32}"))
    assert "blobs" in error.message


def test_a_file_may_stand_for_any_member() -> None:
    """Of a call by its task object too; the rest of the call is checked."""
    task = app.tasks["in_place"]
    file = File(f"file_{'0' * 32}")
    bound = task.bind(text=file, raw=b"x", numbers=[1])
    assert file.id in bound
    task.check(bound)
    with pytest.raises(InputInvalid) as refused:
        task.bind(text=file, numbers=["one"], other=1)
    assert {fault.pointer for fault in refused.value.faults} == {"/other"}
    with pytest.raises(InputInvalid) as refused:
        task.check(f'{{"text": {{"$file": "{file.id}"}}, "numbers": ["one"], "other": 1}}')
    assert {fault.pointer for fault in refused.value.faults} == {"", "/other", "/numbers/0"}
    with pytest.raises(InputInvalid):
        task.check('{"text": {"$file": "elsewhere"}, "raw": "", "numbers": []}')


# -- outputs


@pytest.mark.parametrize("task", ["large", "large_in_a_thread"])
async def test_a_large_output_goes_into_a_file(desk: Desk, task: str) -> None:
    """That belongs to the job; up to the limit it stays in the row."""
    at_most = INLINE_BYTES - 2  # two quotes
    assert len(await desk.stage.output(task, size=at_most)) == at_most
    job = await desk.stage.run(task, size=at_most + 1)
    assert job.state is State.succeeded
    assert job.output is not None
    assert job.output.startswith('{"$file":')
    file = await desk.files.get(DEFAULT_TENANT, job.output[10:-2])
    assert (file.job, file.purpose, file.size) == (job.id, "output", at_most + 3)
    assert await desk.content(file.id) == b'"' + b"x" * (at_most + 1) + b'"'


async def test_a_large_output_of_items(desk: Desk) -> None:
    """What was streamed is kept as one list."""
    output = await desk.stage.output("large_items", count=3000)
    content = await desk.content(output["$file"])
    assert content.startswith(b'[{"n":"000')
    assert content.count(b'"n"') == 3000


async def test_without_a_store_a_large_output_stays_in_the_row() -> None:
    """As ever."""
    async with stage(app) as made:
        await made.work()
        assert len(await made.output("large", size=INLINE_BYTES * 2)) == INLINE_BYTES * 2


async def test_a_store_that_is_away_for_a_moment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output waits for it, under its lease."""
    write = FolderStore.write
    tries: list[None] = []

    async def flaky(self: FolderStore, chunks: Any) -> Any:
        tries.append(None)
        if len(tries) < 3:
            raise FilesUnavailable("away")
        return await write(self, chunks)

    monkeypatch.setattr(FolderStore, "write", flaky)
    assert "$file" in await desk.stage.output("large", size=INLINE_BYTES)
    assert len(tries) == 3


@pytest.mark.parametrize(("error", "tries"), [(FilesUnavailable("away"), TRIES), (StorageFull("no room"), 1)])
async def test_an_output_that_cannot_be_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    """The attempt fails, in the store's words, and may be tried again."""
    tried: list[None] = []

    async def broken(self: FolderStore, chunks: Any) -> Any:
        tried.append(None)
        raise error

    monkeypatch.setattr(FolderStore, "write", broken)
    failed = await desk.stage.error("large", size=INLINE_BYTES)
    assert failed.code == error.code  # type: ignore[attr-defined]
    assert str(error) in failed.message
    assert len(tried) == tries * desk.stage.app.tasks["large"].card.options.retry.max_attempts


# -- artifacts


async def test_artifacts_are_files_of_the_job_with_events(desk: Desk) -> None:
    """Awaited or not, each has its event before the job ends; one may be the output."""
    job = await desk.stage.run("makes")
    told = await desk.stage.data(job.id, "artifact")
    assert [one["name"] for one in told] == ["table.csv", "later.bin"]
    assert told[0] == {
        "name": "table.csv",
        "file": told[0]["file"],
        "url": f"/v1/files/{told[0]['file']}/content",
        "content_type": "text/csv",
        "size": 8,
        "sha256": hashlib.sha256(b"a,b\n1,2\n").hexdigest(),
    }
    assert job.output == f'{{"$file":"{told[0]["file"]}"}}'
    assert await desk.content(told[1]["file"]) == b"not awaited"
    assert (await desk.files.get(DEFAULT_TENANT, told[1]["file"])).job == job.id
    assert (await desk.files.list(DEFAULT_TENANT)).files == ()


async def test_artifacts_of_a_blocking_task(desk: Desk) -> None:
    """Kept when the call returns, from a path or an iterator."""
    job_id = await desk.stage.submit("makes_in_a_thread")
    await desk.stage.ended(job_id)
    first, second = await desk.stage.data(job_id, "artifact")
    assert await desk.content(first["file"]) == b"onetwo"
    assert await desk.content(second["file"]) == b"pixels"
    assert (await desk.stage.job(job_id)).output == f'"{second["file"]}"'


async def test_an_artifact_of_something_else(desk: Desk) -> None:
    """Text is refused: nobody knows its encoding, and it may have been meant as a path."""
    error = await desk.stage.error("makes_nonsense")
    assert "encoded first" in error.message


async def test_an_artifact_that_cannot_be_kept_fails_the_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was not awaited: what the job says it made is there."""

    async def broken(self: FolderStore, chunks: Any) -> Any:
        raise StorageFull("no room")

    monkeypatch.setattr(FolderStore, "write", broken)
    for task in ("makes", "makes_in_a_thread"):
        error = await desk.stage.error(task)
        assert "no room" in error.message
