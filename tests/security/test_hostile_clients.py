"""Clients that send too much, too slowly, or what was made to hurt: refused in time, within bounded memory."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from door_support import Door, answer_to, needs_proc, opened

HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GROWTH_KIB = 32 * 1024  # what an attack may make the door grow by, whatever its size
READ_KIB = 128 * 1024  # a megabyte of JSON may be 300,000 objects while it is read; one body is read at a time
CROWD = 200


@asynccontextmanager
async def unharmed(folder: Path, growth_kib: int = GROWTH_KIB, **options: object) -> AsyncIterator[Door]:
    """A door that must be there after what is done to it: as small as before, answering, without complaint."""
    async with opened(folder, keys=False, worker=False, **options) as door:
        await _submits(door)
        door.forget_peak()
        before_kib = door.memory_kib()
        yield door
        await _submits(door)
        assert door.memory_kib("VmHWM") - before_kib < growth_kib
        assert "Traceback" not in door.log.read_text()


async def _submits(door: Door) -> None:
    async with httpx.AsyncClient(base_url=door.url) as http:
        assert (await http.post("/v1/jobs", json={"task": "wait"})).status_code == 202


def _bombs() -> dict[str, tuple[str, bytes]]:
    """A few KiB each that would be megabytes and more."""
    zeros = b"0" * 50_000_000
    gzipped = gzip.compress(zeros)
    members = b"".join(gzip.compress(b"") for _ in range(20_000))
    return {
        "gzip": ("gzip", gzipped),
        "gzip of gzip": ("gzip, gzip", gzip.compress(gzipped)),
        "ten thousands of members": ("gzip", members),
        "deflate": ("deflate", zlib.compress(zeros)),
        "br": ("br", b"\xa1\xf8\x1f\x80" + b"\x00" * 1_000),
        "zstd": ("zstd", b"\x28\xb5\x2f\xfd" + b"\x00" * 1_000),
        "bzip2": ("x-bzip2", bz2.compress(zeros)),
        "unknown": ("wishful", b"{}"),
    }


@pytest.mark.skipif(*needs_proc[:1], reason=needs_proc[1])
async def test_what_is_packed_is_not_unpacked(tmp_path: Path) -> None:
    """415 for any Content-Encoding but `identity`, on every route that reads a body."""
    bombs = _bombs()
    async with unharmed(tmp_path) as door, httpx.AsyncClient(base_url=door.url, timeout=30) as http:
        for name, (encoding, packed) in bombs.items():
            headers = {"content-encoding": encoding, "content-type": "application/json"}
            for path in ("/v1/jobs", "/v1/jobs/job_x/cancel", "/v1/chat/completions", "/v1/embeddings"):
                answer = await http.post(path, content=packed, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), (name, path)
            lines = {**headers, "content-type": "application/x-ndjson"}
            assert (await http.post("/v1/jobs", content=packed, headers=lines)).status_code == 415
        plain = {"content-encoding": "identity", "content-type": "application/json"}
        assert (await http.post("/v1/jobs", content=b'{"task":"wait"}', headers=plain)).status_code == 202


def _forms() -> dict[str, tuple[bytes, int]]:
    """Forms of a great many tiny members, or of one that never ends; with the status that refuses each."""
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    file = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n'
    return {
        "fields": (field * 100_000 + file + b"--b--\r\n", 413),
        "fields behind the file": (file + field * 100_000 + b"--b--\r\n", 413),
        "files": (file * 100_000 + b"--b--\r\n", 400),
        "members without a head": (b"--b\r\n\r\n\r\n" * 100_000, 400),
        "headers of one member": (b"--b\r\n" + b"a: b\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n", 400),
        "a header without an end": (b"--b\r\na: " + b"b" * 5_000_000, 400),
        "a field without an end": (field[:-2] + b"x" * 5_000_000, 413),
        "nothing but line ends": (b"\r\n" * 2_500_000, 413),
        "what only looks like boundaries": (field[:-2] + b"\r\n--c" * 1_000_000, 413),
        "after the end": (file + b"--b--\r\n" + b"x" * 5_000_000, 413),
    }


@pytest.mark.skipif(*needs_proc[:1], reason=needs_proc[1])
async def test_forms_of_a_great_many_members(tmp_path: Path) -> None:
    """Refused as soon as it is seen, with most of it unread: what is in memory is a piece, never the form."""
    async with unharmed(tmp_path) as door, httpx.AsyncClient(base_url=door.url, timeout=30) as http:
        for name, (form, status) in _forms().items():
            answer = await http.post(
                "/v1/files", content=form, headers={"content-type": "multipart/form-data; boundary=b"}
            )
            assert answer.status_code == status, (name, answer.text)
            assert (await http.get("/v1/files")).json()["data"] == [], name
    assert [path.name for path in (tmp_path / "jobs.db-files").rglob("*") if path.is_file()] == ["owner"]


@pytest.mark.skipif(*needs_proc[:1], reason=needs_proc[1])
async def test_bodies_that_are_much_when_read(tmp_path: Path) -> None:
    """Depth, long numbers, a great many members: each refused, or taken as what it is; none costs much more than it."""
    many = ",".join(f'"k{n}":{n}' for n in range(60_000))
    bodies = {
        "deep": (b'{"task":"wait","input":' + b"[" * 500_000 + b"]" * 500_000 + b"}", 400),
        "deep objects": (b'{"task":"wait","input":' + b'{"a":' * 150_000 + b"1" + b"}" * 150_000 + b"}", 400),
        "a long number": (b'{"task":"wait","input":{"text":' + b"9" * 1_000_000 + b"}}", 422),
        "a long exponent": (b'{"task":"wait","input":{"text":1e' + b"9" * 100_000 + b"}}", 422),
        "many members": (b'{"task":"wait","input":{' + many.encode() + b"}}", 422),
        "the same member again and again": (b'{"task":"wait","input":{' + b'"a":1,' * 100_000 + b'"a":1}}', 422),
        "many small things": (b'{"task":"wait","input":[' + b"{}," * 300_000 + b"{}]}", 422),
        "backslashes": (b'{"task":"wait","input":{"text":"' + b"\\\\" * 450_000 + b'"}}', 202),
    }
    async with unharmed(tmp_path, READ_KIB) as door, httpx.AsyncClient(base_url=door.url, timeout=30) as http:
        for _ in range(3):
            for name, (body, status) in bodies.items():
                answer = await http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
                assert answer.status_code == status, (name, answer.text[:300])
                assert len(answer.content) < 5_000, "a refusal does not repeat what it refuses"


@pytest.mark.skipif(*needs_proc[:1], reason=needs_proc[1])
async def test_heads_that_are_too_much(tmp_path: Path) -> None:
    """One giant header, very many small ones, a giant path: 431, or cut off; memory does not follow."""
    start = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    floods = {
        "a giant header": [start + b"X-Large: ", *[b"x" * 65_536] * 200],
        "many headers": [start, *[b"".join(b"X-%d: y\r\n" % n for n in range(2_000))] * 100],
        "a giant name": [start, *[b"x" * 65_536] * 200],
        "a giant path": [b"GET /", *[b"x" * 65_536] * 200],
        "a head that never ends": [start, *[b"X: y\r\n" * 10_000] * 50],
        "a giant version": [b"GET / HTTP/", *[b"1" * 65_536] * 50],
        "nothing but line ends": [b"\r\n" * 32_768] * 50,
    }
    async with unharmed(tmp_path) as door:
        for name, pieces in floods.items():
            answer = await answer_to(door.port, *pieces)
            assert answer[:12] in (b"", b"HTTP/1.1 431", b"HTTP/1.1 400"), (name, answer[:200])


@pytest.mark.parametrize("where", ["head", "body", "nothing"])
async def test_a_crowd_that_sends_a_letter_now_and_then(where: str, tmp_path: Path) -> None:
    """Slowloris on the head, on the body, or with nothing: dropped at the deadline; others are served meanwhile."""
    opening = {"head": HEAD + b"X-Slow: ", "body": HEAD + b'Content-Length: 50\r\n\r\n{"task"', "nothing": b""}[where]
    async with unharmed(tmp_path, body_deadline_s=1.0) as door:
        crowd = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(CROWD)]
        for _, writer in crowd:
            writer.write(opening)
        feeding = asyncio.gather(*(_fed(reader, writer, where) for reader, writer in crowd))
        while not feeding.done():
            await _submits(door)
        statuses = {answer[:12] for answer in await feeding}
        assert statuses <= ({b"HTTP/1.1 408", b""} if where == "body" else {b""})


async def _fed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> bytes:
    """Feed a connection slowly until the server is done with it; what it said."""
    answer = b""
    try:
        async with asyncio.timeout(60):
            while not reader.at_eof():
                if where != "nothing":
                    writer.write(b" ")
                try:
                    async with asyncio.timeout(0.2):
                        answer += await reader.read(1_000)
                except TimeoutError:
                    continue
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return answer


SMUGGLED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "chunks of another spelling": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
    "a length with spaces": b"Content-Length: 1 2\r\n\r\n{}",
    "a chunk of a negative size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    "a chunk of an endless size": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
    "a header with a NUL": b"X-Odd: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": b"X-Odd: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a name": b": x\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": b"X-Odd : x\r\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return": b"X-Odd: a\rX: y\r\nContent-Length: 2\r\n\r\n{}",
}


async def test_requests_that_two_servers_would_read_differently(tmp_path: Path) -> None:
    """What a proxy before us may take for another request is a 400 and the connection's end; never two answers."""
    async with unharmed(tmp_path) as door:
        for name, rest in SMUGGLED.items():
            answer = await answer_to(door.port, HEAD + rest)
            assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 415", b"HTTP/1.1 408", b""), (name, answer[:200])
            assert answer.count(b"HTTP/1.1 ") <= 1, (name, answer)


async def test_noise_is_no_request(tmp_path: Path) -> None:
    """TLS, HTTP/2, other protocols, random bytes: closed, or a 400."""
    dice = random.Random(5)
    noises = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
        *(dice.randbytes(dice.randrange(1, 5_000)) for _ in range(50)),
    ]
    async with unharmed(tmp_path) as door:
        for noise in noises:
            answer = await answer_to(door.port, noise)
            assert answer[:10] in (b"", b"HTTP/1.1 4"), (noise[:40], answer[:200])
            assert b"Traceback" not in answer


async def test_events_of_any_size_go_up_and_come_down_within_bounds(tmp_path: Path) -> None:
    """An NDJSON submit of a thousand lines near the limit, and one line above it."""
    line = json.dumps({"task": "wait", "input": {"text": "x" * 12_000}}).encode()
    async with unharmed(tmp_path) as door, httpx.AsyncClient(base_url=door.url, timeout=30) as http:
        headers = {"content-type": "application/x-ndjson"}
        assert (await http.post("/v1/jobs", content=b"\n".join([line] * 1_001), headers=headers)).status_code == 413
        assert (await http.post("/v1/jobs", content=b"{" * (17 << 20), headers=headers)).status_code == 413
