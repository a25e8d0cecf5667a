"""Files over HTTP: upload, list, look, download, delete; limits, names, ranges and tenants."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from serving_support import ENGINES, QUICK, Stage, stage

from ropeway.blobs.folder import FolderStore
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway


@pytest.fixture(params=ENGINES)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(request.param, tmp_path, blobs=FolderStore(tmp_path / "blobs")) as made:
        yield made


def small(**limits: Any) -> Any:
    return msgspec.structs.replace(QUICK, **limits)


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file() and path.name != "owner"]


async def put(desk: Stage, content: bytes, **params: Any) -> dict[str, Any]:
    answer = await desk.http.post("/v1/files", content=content, params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def form(*parts: tuple[str, str, bytes], boundary: str = "frontier") -> dict[str, Any]:
    """A form as a client would write it: (name, further headers' tail, content) of each part."""
    lines = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + content + b"\r\n"
        for name, rest, content in parts
    )
    return {
        "content": lines + f"--{boundary}--\r\n".encode(),
        "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    }


# -- up and down


async def test_a_raw_body_is_a_file(desk: Stage) -> None:
    """What was sent comes back, with its type, its name and its hash."""
    content = bytes(range(256)) * 5000
    answer = await desk.http.post(
        "/v1/files?filename=tile.tif&purpose=vision", content=content, headers={"Content-Type": "image/tiff"}
    )
    body = answer.json()
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/v1/files/{body['id']}"
    assert body == {
        "id": body["id"],
        "object": "file",
        "bytes": len(content),
        "created_at": body["created_at"],
        "filename": "tile.tif",
        "purpose": "vision",
        "content_type": "image/tiff",
        "sha256": hashlib.sha256(content).hexdigest(),
        "status": "processed",
        "expires_at": None,
        "job_id": None,
    }
    assert (await desk.http.get(f"/v1/files/{body['id']}")).json() == body
    down = await desk.http.get(f"/v1/files/{body['id']}/content")
    assert down.content == content
    assert down.headers["content-type"] == "image/tiff"
    assert down.headers["etag"] == f'"{body["sha256"]}"'


async def test_a_form_is_a_file(desk: Stage) -> None:
    """As browsers and OpenAI's SDKs send it, the fields before or after the file."""
    files = {"file": ("batch.jsonl", b'{"a": 1}\n', "application/jsonl")}
    answer = await desk.http.post("/v1/files", data={"purpose": "batch"}, files=files)
    body = answer.json()
    assert (body["filename"], body["purpose"], body["bytes"]) == ("batch.jsonl", "batch", 9)
    assert body["content_type"] == "application/jsonl"

    turned = form(("file", '; filename="x.txt"', b"text"), ("purpose", "", b"vision"), ("else", "", b"ignored"))
    body = (await desk.http.post("/v1/files", **turned)).json()
    assert (body["filename"], body["purpose"], body["content_type"]) == ("x.txt", "vision", "text/plain")


async def test_a_form_in_any_pieces(desk: Stage) -> None:
    """Wherever the network cuts it, also in the boundary, the file is the same."""
    content = b"\r\n--fronti\r\n--frontie" * 3
    sent = form(("purpose", "", b"batch"), ("file", '; filename="a"', content), ("more", "", b"x"))
    whole: bytes = sent["content"]
    for size in (1, 2, 3, 7, 16, 50):

        async def cut(size: int = size) -> AsyncIterator[bytes]:
            for at in range(0, len(whole), size):
                yield whole[at : at + size]

        answer = await desk.http.post("/v1/files", content=cut(), headers=sent["headers"])
        assert answer.status_code == 200, answer.text
        assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


async def test_files_are_listed_newest_first(desk: Stage) -> None:
    """Page by page, by purpose, without those of other purposes between."""
    made = [(await put(desk, b"x", filename=f"f{n}", purpose="ab"[n % 2]))["id"] for n in range(5)]
    stamps = [id_[:17] for id_ in made]
    first = (await desk.http.get("/v1/files?limit=2")).json()
    assert first["object"] == "list"
    assert first["has_more"] is True
    assert [file["id"][:17] for file in first["data"]] == sorted(stamps, reverse=True)[:2]
    second = (await desk.http.get(f"/v1/files?limit=3&after={first['last_id']}")).json()
    assert second["has_more"] is False
    assert sorted(made) == sorted(file["id"] for file in first["data"] + second["data"])
    only = (await desk.http.get("/v1/files?purpose=b")).json()
    assert {file["filename"] for file in only["data"]} == {"f1", "f3"}
    assert (await desk.http.get("/v1/files?purpose=none")).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


async def test_a_deleted_file_is_gone(desk: Stage, tmp_path: Path) -> None:
    """From the list, by its id, and from the disk; and a second delete finds nothing."""
    file = await put(desk, b"to be deleted")
    assert len(kept(tmp_path)) == 1
    gone = await desk.http.delete(f"/v1/files/{file['id']}")
    assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
    assert kept(tmp_path) == []
    for answer in (
        await desk.http.get(f"/v1/files/{file['id']}"),
        await desk.http.get(f"/v1/files/{file['id']}/content"),
        await desk.http.delete(f"/v1/files/{file['id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")
    assert (await desk.http.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-4", 206, b"01234"),
        ("bytes=5-", 206, b"56789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-99", 200, b"0123456789"),
        ("bytes=4-99", 206, b"456789"),
        ("bytes=0-9", 200, b"0123456789"),
        ("bytes=4-2", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
async def test_a_range_of_a_file(desk: Stage, asked: str, status: int, part: bytes) -> None:
    """One range is served; what is no range, or several, gets all of it (RFC 9110)."""
    file = await put(desk, b"0123456789")
    answer = await desk.http.get(f"/v1/files/{file['id']}/content", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, part)
    if status == 206:
        start = b"0123456789".index(part)
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/10"


async def test_a_range_that_is_not_there(desk: Stage) -> None:
    """416 tells the size."""
    file = await put(desk, b"0123456789")
    for asked in ("bytes=10-", "bytes=10-20", "bytes=-0"):
        answer = await desk.http.get(f"/v1/files/{file['id']}/content", headers={"Range": asked})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["content-range"] == "bytes */10"


async def test_a_download_is_resumed_only_if_it_is_the_same(desk: Stage) -> None:
    """If-Range with another ETag gets the whole; If-None-Match with this one, nothing; HEAD, the head."""
    file = await put(desk, b"0123456789")
    path, etag = f"/v1/files/{file['id']}/content", f'"{file["sha256"]}"'
    same = await desk.http.get(path, headers={"Range": "bytes=8-", "If-Range": etag})
    assert (same.status_code, same.content) == (206, b"89")
    other = await desk.http.get(path, headers={"Range": "bytes=8-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, b"0123456789")
    known = await desk.http.get(path, headers={"If-None-Match": f'"x", {etag}'})
    assert (known.status_code, known.content) == (304, b"")
    head = await desk.http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")


async def test_an_empty_file(desk: Stage) -> None:
    """Has no bytes, and is a file all the same."""
    file = await put(desk, b"")
    answer = await desk.http.get(f"/v1/files/{file['id']}/content")
    assert (answer.status_code, answer.content, file["bytes"]) == (200, b"", 0)


# -- what may be sent


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("a\x00b.png", "ab.png"),
        ("\r\nSet-Cookie: a=b", "Set-Cookie: a=b"),
        ("..", "file"),
        ("", "file"),
        ("   .hidden. ", "hidden"),
        ("größe 漢字 🌾.tif", "größe 漢字 🌾.tif"),
        ("gnp.\u202efdp.exe", "gnp.fdp.exe"),
        ("x" * 300 + ".tiff", "x" * 250 + ".tiff"),
        ("漢" * 200, "漢" * 85),
        ('quo"te;.txt', 'quo"te;.txt'),
    ],
)
async def test_a_name_is_only_a_name(desk: Stage, tmp_path: Path, sent: str, shown: str) -> None:
    """Whatever it says, it is cleaned, kept for people to see, and no path anywhere; and it goes out in one header."""
    file = await put(desk, b"x", filename=sent)
    assert file["filename"] == shown
    assert all(path.is_relative_to(tmp_path / "blobs") for path in kept(tmp_path))
    head = await desk.http.head(f"/v1/files/{file['id']}/content")
    disposition = head.headers["content-disposition"]
    assert disposition.startswith("attachment; filename=")
    assert disposition.isascii()
    assert "\n" not in disposition


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/html", b"<script>alert(1)</script>"),
        ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
        ("application/xhtml+xml", b"<html/>"),
        ("text/javascript", b"alert(1)"),
    ],
)
async def test_a_page_is_served_inert(desk: Stage, kind: str, content: bytes) -> None:
    """An uploaded page is an attachment, of no other type than it says, in a sandbox without scripts."""
    answer = await desk.http.post("/v1/files?filename=x.html", content=content, headers={"Content-Type": kind})
    down = await desk.http.get(f"/v1/files/{answer.json()['id']}/content")
    assert down.content == content
    assert down.headers["content-disposition"].startswith("attachment")
    assert down.headers["x-content-type-options"] == "nosniff"
    assert down.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert down.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    ("sent", "kept_as"),
    [
        ("image/png", "image/png"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("TEXT/HTML", "text/html"),
        ("nonsense", "application/octet-stream"),
        ("text/html; evil=1", "application/octet-stream"),
        ("application/x-www-form-urlencoded", "application/octet-stream"),
    ],
)
async def test_a_content_type_is_plain(desk: Stage, sent: str, kept_as: str) -> None:
    """What is no media type is not repeated to anybody."""
    answer = await desk.http.post("/v1/files", content=b"x", headers={"Content-Type": sent})
    assert answer.json()["content_type"] == kept_as


async def test_a_digest_is_checked(desk: Stage, tmp_path: Path) -> None:
    """By Repr-Digest, Content-Digest or ?sha256=: other bytes than announced are refused, and not kept."""
    digest = base64.b64encode(hashlib.sha256(b"right").digest()).decode()
    for header in ("Repr-Digest", "Content-Digest"):
        for content, status in ((b"right", 200), (b"wrong", 400)):
            answer = await desk.http.post(
                "/v1/files", content=content, headers={header: f"md5=:AAAA:, sha-256=:{digest}:"}
            )
            assert answer.status_code == status
    refused = await desk.http.post(f"/v1/files?sha256={'0' * 64}", **form(("file", "", b"wrong")))
    assert (refused.status_code, refused.json()["code"]) == (400, "digest_mismatch")
    assert len(kept(tmp_path)) == 2
    malformed = await desk.http.post("/v1/files", content=b"x", headers={"Repr-Digest": "sha-256=:AAAA:"})
    assert malformed.json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("purpose=Has Space", "purpose"),
        ("purpose=" + "x" * 65, "purpose"),
        ("expires_in=0", "expires_in"),
        ("expires_in=soon", "expires_in"),
        ("expires_in=1e99", "expires_in"),
        ("sha256=abc", "sha256"),
        ("colour=red", "colour"),
    ],
)
async def test_parameters_are_checked(desk: Stage, tmp_path: Path, query: str, param: str) -> None:
    """A parameter that means nothing is refused, by name, and nothing is kept."""
    answer = await desk.http.post(f"/v1/files?{query}", content=b"x")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "after=job_1", "order=asc", "purpose=A"])
async def test_a_list_is_asked_properly(desk: Stage, query: str) -> None:
    """What a list cannot do is said."""
    answer = await desk.http.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize(
    "id_", ["nothing", "file_" + "0" * 32, "file_" + "Z" * 32, "..%2f..%2fetc", "file_" + "0" * 400]
)
async def test_a_file_that_is_not_there(desk: Stage, id_: str) -> None:
    """404, whatever the id is."""
    for path in (f"/v1/files/{id_}", f"/v1/files/{id_}/content"):
        answer = await desk.http.get(path)
        assert answer.status_code == 404


async def test_an_encoded_body_is_refused(desk: Stage) -> None:
    """What would have to be unpacked first could be a thousand times as large."""
    answer = await desk.http.post("/v1/files", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


# -- limits


@pytest.mark.parametrize("as_form", [False, True])
async def test_a_file_too_large_is_refused(tmp_path: Path, as_form: bool) -> None:
    """Whether its size was announced or only came to light; and nothing of it is kept."""
    async with stage(blobs=FolderStore(tmp_path / "blobs"), options=small(max_file_bytes=1000)) as desk:
        sent: dict[str, Any] = form(("file", "", b"x" * 1001)) if as_form else {"content": b"x" * 1001}

        async def unannounced() -> AsyncIterator[bytes]:
            for at in range(0, len(sent["content"]), 100):
                yield sent["content"][at : at + 100]

        for content in (sent["content"], unannounced()):
            answer = await desk.http.post("/v1/files", content=content, headers=sent.get("headers"))
            assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        fits = form(("file", "", b"x" * 1000)) if as_form else {"content": b"x" * 1000}
        assert (await desk.http.post("/v1/files", **fits)).status_code == 200
    assert len(kept(tmp_path)) == 1


async def test_a_tenant_has_a_quota(tmp_path: Path) -> None:
    """Uploads above it are refused while they come; what is deleted makes room."""
    async with stage(blobs=FolderStore(tmp_path / "blobs"), options=small(max_tenant_file_bytes=1000)) as desk:
        first = await put(desk, b"x" * 600)
        refused = await desk.http.post("/v1/files", content=b"y" * 401)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exhausted")
        assert refused.headers["x-should-retry"] == "false"
        await put(desk, b"y" * 400)
        await desk.http.delete(f"/v1/files/{first['id']}")
        await put(desk, b"z" * 600)
        assert (await desk.http.post("/v1/files", content=b"!")).status_code == 429
    assert sorted(path.stat().st_size for path in kept(tmp_path)) == [400, 600]


async def test_without_a_store_it_says_so() -> None:
    """A gateway that was given none, on an engine without a place for one."""
    async with stage() as desk:
        for answer in (await desk.http.get("/v1/files"), await desk.http.post("/v1/files", content=b"x")):
            assert (answer.status_code, answer.json()["code"]) == (501, "files_not_kept")


async def test_beside_a_sqlite_file_there_is_a_store(tmp_path: Path) -> None:
    """Files work without any setting there."""
    async with stage("sqlite", tmp_path) as desk:
        file = await put(desk, b"at home")
        assert (await desk.http.get(f"/v1/files/{file['id']}/content")).content == b"at home"
    assert (tmp_path / "jobs.db-files").is_dir()


async def test_another_tenants_file_is_not_there(tmp_path: Path) -> None:
    """Not by its id, not in a list; byte for byte as one that never was."""
    engine = MemoryEngine()
    await engine.open()
    store = FolderStore(tmp_path / "blobs")
    ours, theirs = (Gateway(engine, QUICK, tenant=tenant, blobs=store) for tenant in ("ours", "theirs"))

    def client(gateway: Gateway) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://gateway.test")

    async with client(ours) as we, client(theirs) as they:
        file = (await we.post("/v1/files", content=b"secret")).json()["id"]
        never = f"file_{'0' * 32}"
        for path in ("", "/content"):
            there, nowhere = [await they.get(f"/v1/files/{id_}{path}") for id_ in (file, never)]
            assert there.status_code == 404
            assert masked(there, file) == masked(nowhere, never)
        assert (await they.delete(f"/v1/files/{file}")).status_code == 404
        assert (await they.get("/v1/files")).json()["data"] == []
        assert (await they.get(f"/v1/files?after={file}")).json()["data"] == []
        assert (await we.get(f"/v1/files/{file}/content")).content == b"secret"
    await engine.shut()


def masked(answer: httpx.Response, id_: str) -> str:
    body = answer.json()
    del body["instance"]
    return msgspec.json.encode(body).decode().replace(id_, "ID")
