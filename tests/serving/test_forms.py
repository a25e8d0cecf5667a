"""Forms that were made to hurt: each is refused, or harmless, in bounded memory and work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import httpx
import msgspec
import pytest
from serving_support import QUICK, Call, Stage, stage, until

from ropeway.blobs.folder import FolderStore
from ropeway.domain.errors import PayloadTooLarge
from ropeway.serving.files.uploads import FIELD_BYTES, FORM_ROOM_BYTES, PART_HEADERS, PARTS, Form

HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Stage]:
    options = msgspec.structs.replace(QUICK, max_file_bytes=50 << 20)
    async with stage(blobs=FolderStore(tmp_path / "blobs"), options=options) as made:
        yield made


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file() and path.name != "owner"]


def part(head: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = part('Content-Disposition: form-data; name="file"; filename="f"')
END = b"--b--\r\n"


async def send(
    desk: Stage, content: bytes | AsyncIterator[bytes], kind: str = HEADERS["Content-Type"]
) -> httpx.Response:
    return await desk.http.post("/v1/files", content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(b"", 400, id="nothing"),
        pytest.param(END, 400, id="no part"),
        pytest.param(FILE, 400, id="no end"),
        pytest.param(FILE[:-10], 400, id="cut in the file"),
        pytest.param(b"--b\r\nContent-Dispo", 400, id="cut in a header"),
        pytest.param(b"garbage that is no form", 400, id="garbage"),
        pytest.param(part("X: y") + END, 400, id="a part without a name"),
        pytest.param(part('Content-Disposition: attachment; name="file"') + END, 400, id="no form-data"),
        pytest.param(part('Content-Disposition: form-data; name="else"') + END, 400, id="no file"),
        pytest.param(FILE + FILE + END, 400, id="two files"),
        pytest.param(b"--b\r\nno colon here\r\n\r\nx\r\n" + END, 400, id="a header without a colon"),
        pytest.param(b"--b\r\nBad\x00Name: y\r\n\r\nx\r\n" + END, 400, id="NUL in a header's name"),
        pytest.param(
            part("Content-Disposition: form-data; name=file\r\n" + "\r\n".join(f"H{n}: v" for n in range(PART_HEADERS)))
            + END,
            400,
            id="too many headers",
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="file"\r\nH: ' + "v" * 10_000) + END, 400, id="a long one"
        ),
        pytest.param(b"--b\r\n" + b"H" * 1_000_000, 400, id="a header without end"),
        pytest.param(
            part('Content-Disposition: form-data; name="a"') * (PARTS + 1) + FILE + END, 413, id="too many parts"
        ),
        pytest.param(
            part('Content-Disposition: form-data; name="a"', b"x" * (FIELD_BYTES + 1)) + END, 413, id="a long field"
        ),
        pytest.param(FILE + END + b"\r\n" * FORM_ROOM_BYTES, 413, id="much after the end"),
        pytest.param(b"\r\n" * FORM_ROOM_BYTES + FILE + END, 413, id="much before the beginning"),
    ],
)
async def test_a_form_that_is_none(desk: Stage, tmp_path: Path, content: bytes, status: int) -> None:
    """It is refused with a reason, and nothing of it is kept."""
    answer = await send(desk, content)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "boundary",
    ["", "boundary=", "boundary=" + "x" * 71, 'boundary="a\tb"', "boundary=ä", 'boundary=" "', "charset=utf-8"],
)
async def test_a_boundary_that_is_none(desk: Stage, boundary: str) -> None:
    """It is refused before anything is read."""
    answer = await desk.http.post(
        "/v1/files",
        content=FILE + END,
        headers=[(b"Content-Type", f"multipart/form-data; {boundary}".encode("latin-1"))],
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Content-Type")


async def test_other_multipart_is_not_read(desk: Stage) -> None:
    """Nor taken for the bytes of a file."""
    answer = await send(desk, FILE + END, "multipart/mixed; boundary=b")
    assert answer.status_code == 415


async def test_what_comes_byte_by_byte_is_no_more_work(desk: Stage) -> None:
    """A file of boundaries that almost are ones comes through whole."""
    content = b"\r\n--" * 20_000 + b"\r\n-" * 20_000
    answer = await send(desk, part('Content-Disposition: form-data; name="file"', content) + END)
    assert answer.json()["bytes"] == len(content)


async def test_a_hundred_thousand_tiny_parts_are_refused_at_the_first_few() -> None:
    """However large the pieces are in which they come: with the part that is one too many, and the rest unread."""
    field = part('Content-Disposition: form-data; name="a"', b"")
    whole = field * 100_000 + FILE + END
    for size in (len(field), 64 << 10, len(whole)):
        given = 0

        async def chunks(size: int = size) -> AsyncIterator[bytes]:
            nonlocal given
            for start in range(0, len(whole), size):
                given += 1
                yield whole[start : start + size]

        form = Form({b"content-type": HEADERS["Content-Type"].encode()}, chunks())
        with pytest.raises(PayloadTooLarge, match=f"more than {PARTS} parts"):
            assert [block async for block in form.file()] == []
        assert given <= PARTS * len(field) // size + 2
        assert form.fields == {"a": ""}


async def test_a_client_that_leaves_leaves_nothing(desk: Stage, tmp_path: Path) -> None:
    """In the middle of a form or of a raw body."""
    for headers in ({}, HEADERS):
        async with Unfinished(desk.gateway, "POST", "/v1/files", headers=headers, body=FILE) as call:
            await until(lambda: bool(kept(tmp_path)))  # its draft
            call.leave()
            await call.done()
        assert kept(tmp_path) == []


async def test_a_client_that_stops_is_let_go(tmp_path: Path) -> None:
    """After the deadline for a pause, and after the one for the whole, whichever comes first."""
    for name in ("body_deadline_s", "upload_deadline_s"):
        options = msgspec.structs.replace(QUICK, **{name: 0.05})
        async with stage(blobs=FolderStore(tmp_path / name / "blobs"), options=options) as desk:
            async with Unfinished(desk.gateway, "POST", "/v1/files", body=b"half") as call:
                await call.done()
            assert call.status == 408
        assert kept(tmp_path / name) == []


async def test_only_so_many_come_in_at_once(tmp_path: Path) -> None:
    """The next one is refused, to come again; room is there when one has ended, however it did."""
    options = msgspec.structs.replace(QUICK, max_uploads=2)
    async with (
        stage(blobs=FolderStore(tmp_path / "blobs"), options=options) as desk,
        Unfinished(desk.gateway, "POST", "/v1/files", body=b"half") as one,
        Unfinished(desk.gateway, "POST", "/v1/files", body=b"half"),
    ):
        await until(lambda: len(kept(tmp_path)) == 2)
        refused = await desk.http.post("/v1/files", content=b"x")
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
        assert "retry-after" in refused.headers
        one.leave()
        await one.done()
        assert (await desk.http.post("/v1/files", content=b"x")).status_code == 200


class Unfinished(Call):
    """A request whose body says that more is to come, and never does."""

    async def _receive(self) -> dict[str, object]:
        if not self._sent_body:
            self._sent_body = True
            return {"type": "http.request", "body": self.body, "more_body": True}
        await self._left.wait()
        return {"type": "http.disconnect"}


def test_the_parser_has_no_known_faults() -> None:
    """Versions below these have published ones: CVE-2026-42561 in the parser, CVE-2026-54283 in Starlette."""
    assert tuple(map(int, version("python-multipart").split("."))) >= (0, 0, 31)
    assert tuple(map(int, version("starlette").split(".")[:3])) >= (1, 3, 1)


async def test_uploads_at_the_same_time(desk: Stage) -> None:
    """Do not mix."""
    contents = [bytes([n]) * 100_000 for n in range(16)]
    answers = await asyncio.gather(
        *[send(desk, part('Content-Disposition: form-data; name="file"', content) + END) for content in contents]
    )
    for content, answer in zip(contents, answers, strict=True):
        down = await desk.http.get(f"/v1/files/{answer.json()['id']}/content")
        assert down.content == content
