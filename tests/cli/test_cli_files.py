"""`ropeway files`, where files are kept, and what commands say of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import APPLICATION, Process
from cli_support import lines_of, publish, redis_url, run, url_in

from ropeway import Client
from ropeway.cli.exits import Exit
from ropeway.cli.stores import tell_store
from ropeway.config import Settings, load_settings
from ropeway.domain.errors import InvalidRequest
from servers import until


@pytest.fixture(name="folder", params=["sqlite", "redis"])
def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder to work in, with a store that the environment names; on Redis its files must be given a place."""
    url = url_in(tmp_path) if request.param == "sqlite" else redis_url()
    publish(url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROPEWAY_ENGINE", url)
    monkeypatch.delenv("ROPEWAY_URL", raising=False)
    if request.param == "redis":
        monkeypatch.setenv("ROPEWAY_BLOBS", "file:kept")
    return tmp_path


def test_files_are_put_listed_fetched_and_deleted(folder: Path) -> None:
    """One after the other, as a person would."""
    (folder / "tile.tif").write_bytes(b"pixels")
    (folder / "größe.txt").write_text("words")
    put = lines_of(run("files", "put", "tile.tif", "größe.txt", "--purpose", "vision", "--expires-in", "3600"))
    assert [(file["filename"], file["bytes"], file["content_type"]) for file in put] == [
        ("tile.tif", 6, "image/tiff"),
        ("größe.txt", 5, "text/plain"),
    ]
    tile = put[0]["id"]
    assert {file["id"] for file in lines_of(run("files", "list"))} == {file["id"] for file in put}
    assert lines_of(run("files", "list", "--purpose", "other")) == []
    assert "größe.txt" in run("files", "list", "--text").stdout

    (folder / "elsewhere").mkdir()
    assert lines_of(run("files", "get", tile, "-o", "elsewhere")) == [{"id": tile, "path": "elsewhere/tile.tif"}]
    assert (folder / "elsewhere" / "tile.tif").read_bytes() == b"pixels"
    assert run("files", "get", tile, "-o", "other.tif", "--text").stdout.strip() == "other.tif"
    assert (folder / "other.tif").read_bytes() == b"pixels"

    assert run("files", "delete", tile).exit_code == Exit.ok
    for command in ("get", "delete"):
        gone = run("files", command, tile)
        assert gone.exit_code == Exit.not_found
        assert tile in gone.stderr
    assert not list(folder.glob("*.part"))


@pytest.mark.usefixtures("folder")
def test_a_path_that_is_not_there() -> None:
    """Is told before anything is sent."""
    assert run("files", "put", "nothing.tif").exit_code == Exit.usage


def test_prune_takes_files_along(folder: Path) -> None:
    """Those that nobody needs any more."""
    (folder / "a").write_bytes(b"x")
    (file,) = lines_of(run("files", "put", "a", "--expires-in", "1"))

    until(lambda: lines_of(run("files", "list")) == [], "the file expires")
    assert file["expires_at"] is not None
    assert lines_of(run("prune")) == [{"deleted": 0, "files": 1}]


# -- where they are kept


def test_the_setting_says_where(tmp_path: Path) -> None:
    """In the file, above it the environment, above that a flag."""
    (tmp_path / "ropeway.toml").write_text('blobs = "file:a"\n[server]\nmax_file_bytes = 5\n')
    path = tmp_path / "ropeway.toml"
    assert load_settings({}, environ={}, path=path).blobs == "file:a"
    assert load_settings({}, environ={}, path=path).server.max_file_bytes == 5
    assert load_settings({}, environ={"ROPEWAY_BLOBS": "file:b"}, path=path).blobs == "file:b"
    assert load_settings({"blobs": "file:c"}, environ={"ROPEWAY_BLOBS": "file:b"}, path=path).blobs == "file:c"


@pytest.mark.parametrize(
    ("engine", "blobs", "said"),
    [
        ("sqlite:a.db", None, ""),
        ("sqlite:a.db", "file:b", ""),
        ("redis://127.0.0.1", None, "files are not kept"),
        ("redis://127.0.0.1", "file:b", "must see the same folder"),
        ("redis://127.0.0.1", "s3://bucket/prefix?region=x", ""),
    ],
)
def test_what_will_surprise_is_told(
    engine: str, blobs: str | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder is one machine's; and on Redis there is none by default."""
    with caplog.at_level(logging.INFO):
        tell_store(Settings(engine=engine, blobs=blobs))
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


@pytest.mark.parametrize(
    "blobs", ["ftp://host", "file:", "file://host/path", "s3:bucket", "s3://", "s3://a?colour=red", "s3://me:pw@a", "x"]
)
def test_a_store_that_there_is_none_of(blobs: str) -> None:
    """Is refused before anything starts, without what may be a password."""
    with pytest.raises(InvalidRequest) as refused:
        tell_store(Settings(engine="redis://127.0.0.1", blobs=blobs))
    assert "pw" not in str(refused.value)


@pytest.fixture(name="home")
def make_home(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(name="up", params=["sqlite:ropeway.db", "memory:"])
def make_up(home: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    process = Process(home, "up", "served:app", "--port", "0", "--engine", request.param)
    try:
        yield process
    finally:
        process.close()


async def test_up_keeps_files(up: Process, home: Path) -> None:
    """Beside the SQLite file, or as long as the process of an engine in memory."""
    told = up.ready()
    async with Client(told["url"]) as client:
        content = bytes(range(256)) * 20_000
        file = await client.upload(content, filename="a.bin")
        assert await client.files.read(file) == content
    code, said = up.stop()
    assert code == Exit.ok, said
    assert "Traceback" not in said
    assert stores_in(home) == (["ropeway.db-files"] if told["engine"].startswith("sqlite") else [])


def stores_in(home: Path) -> list[str]:
    return [path.name for path in home.iterdir() if path.name.endswith("files")]
