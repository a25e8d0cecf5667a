"""Every route with every verb, as anybody and as nobody, from strange pages and by strange paths."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from door_support import Door, answer_to, opened

from ropeway.serving.openapi import build_document
from ropeway.serving.router import OPEN_PATHS
from ropeway.serving.routes import ROUTES

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY")
STRANGE_PATHS = (
    "/../../../../etc/passwd",
    "/v1/../../etc/passwd",
    "/v1/files/..%2f..%2f..%2fetc%2fpasswd/content",
    "/v1/files/%2e%2e%2f%2e%2e%2fjobs.db/content",
    "/v1/jobs/..%5c..%5cjobs.db",
    "/v1/jobs/%00",
    "/v1/jobs/job_x%00.json",
    "/v1/jobs/%0d%0aSet-Cookie:%20a=b",
    "/v1/jobs/%c0%ae%c0%ae/",
    "/v1/jobs/%ff%fe",
    "/v1/jobs/%ed%a0%80",
    "/v1/jobs/" + "x" * 8_000,
    "//v1/jobs",
    "/v1//jobs",
    "/V1/JOBS",
    "/v1/jobs/;/v1/keys",
    "/v1/jobs/%252e%252e",
    "/v1/jobs/*",
    "/v1/jobs/'%20OR%201=1--",
    "/v1/queues/%7b%7d/pause",
    "/v1/tasks/__class__",
    "/.git/config",
    "/.env",
    "/metrics/../v1/keys",
    "/v1/jobs/.",
    "/v1/jobs/..",
)


def test_the_document_is_the_router() -> None:
    """No route is served that the document does not show, and each says who may use it."""
    shown = {(path, verb.upper()) for path, operations in build_document()["paths"].items() for verb in operations}
    assert shown == {(route.path.replace(":path}", "}"), route.method) for route in ROUTES}
    assert not [route.path for route in ROUTES if route.scope == "undeclared"]
    assert {"/livez", "/healthz", "/readyz", "/openapi.json", "/docs"} >= OPEN_PATHS


async def test_who_has_no_key_gets_in_nowhere(tmp_path: Path) -> None:
    """401 on every route but those that are open to all, with every verb, whatever is shown instead of a key."""
    shown: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer rw_" + "A" * 40},
        {"authorization": "Basic cm9vdDpyb290"},
        {"authorization": "Bearer null"},
        {"x-api-key": "rw_x", "cookie": "key=rw_x"},
    ]
    async with opened(tmp_path, worker=False) as door, httpx.AsyncClient(base_url=door.url) as http:
        for headers in shown:
            for route in ROUTES:
                if route.path in OPEN_PATHS:
                    continue
                answer = await http.request(route.method, _asked(route.path), headers=headers)
                assert answer.status_code == 401, (route, headers, answer.text)
                assert answer.json()["code"] == "unauthenticated"
                assert "www-authenticate" in answer.headers


async def test_every_verb_on_every_route_is_answered_without_fault(tmp_path: Path) -> None:
    """What a path does not know is 405 with what it does; a body or none, nothing is a 5xx of ours."""
    async with opened(tmp_path, worker=False, max_wait_s=0.1, call_wait_s=0.1) as door:
        headers = {"authorization": f"Bearer {door.keys['acme']}"}
        known = {path: {route.method for route in ROUTES if route.path == path} for path in {r.path for r in ROUTES}}
        async with httpx.AsyncClient(base_url=door.url, headers=headers, timeout=30) as http:
            for path, methods in known.items():
                for verb in VERBS:
                    if (path, verb) == ("/v1/events", "GET"):
                        continue  # a stream without an end
                    answer = await http.request(verb, _asked(path))
                    assert answer.status_code < 500, (verb, path, answer.text)
                    if verb not in methods and verb not in ("HEAD", "OPTIONS"):
                        assert answer.status_code in (400, 405), (verb, path)
        assert "Traceback" not in door.log.read_text()


async def test_strange_paths_lead_nowhere(tmp_path: Path) -> None:
    """Out of the tree, with NULs, with slashes in disguise, very long: 4xx, as a problem, and no file is shown."""
    async with opened(tmp_path, worker=False) as door:
        for path in STRANGE_PATHS:
            for verb in ("GET", "DELETE"):
                answer = await answer_to(door.port, _request(door, verb, path))
                status = answer[9:12]
                assert status in (b"400", b"404", b"405", b"431"), (verb, path, answer[:300])
                assert b"root:" not in answer
                assert b"\r\nset-cookie" not in answer.lower()
        assert "Traceback" not in door.log.read_text()


@pytest.mark.parametrize("keys", [True, False])
async def test_a_page_of_a_stranger_may_not_call_any_route(keys: bool, tmp_path: Path) -> None:
    """By a foreign Host (DNS rebinding), a foreign or no Origin, or a form: refused, also where no key is asked for."""
    async with opened(tmp_path, keys=keys, worker=False) as door:
        key = {"authorization": f"Bearer {door.keys['acme']}"} if keys else {}
        async with httpx.AsyncClient(base_url=door.url, headers=key) as http:
            for route in ROUTES:
                if route.path in ("/livez", "/healthz", "/readyz"):
                    continue
                for odd in ({"host": "evil.test"}, {"origin": "https://evil.test"}, {"origin": "null"}):
                    answer = await http.request(route.method, _asked(route.path), headers=odd)
                    assert answer.status_code == 403, (route.path, odd, answer.text)
                    assert answer.headers.get("access-control-allow-origin") is None
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                answer = await http.post("/v1/jobs", content=b'{"task":"wait"}', headers={"content-type": kind})
                assert answer.status_code == 415, kind


INJECTED = "\r\nX-Injected: yes\r\n\r\n<script>"


async def test_what_comes_in_does_not_come_out_as_a_line_of_its_own(tmp_path: Path) -> None:
    """Line ends in anything that is repeated, in headers or in the log, stay inside it."""
    encoded = "".join(f"%{byte:02x}" for byte in INJECTED.encode())
    async with opened(tmp_path, worker=False) as door:
        for path in (
            f"/v1/jobs/{encoded}",
            f"/v1/jobs?cursor={encoded}",
            f"/v1/jobs/job_x/events?after={encoded}",
            f"/{encoded}",
            f"/v1/files?order={encoded}",
            f"/v1/jobs?{encoded}=1",
        ):
            answer = await answer_to(door.port, _request(door, "GET", path))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"injected" not in head.lower(), head
            assert b"\r\n" not in body
        async with httpx.AsyncClient(
            base_url=door.url, headers={"authorization": f"Bearer {door.keys['acme']}"}
        ) as http:
            for asked in (
                {"task": INJECTED},
                {"task": "wait", "tags": [INJECTED]},
                {"task": "wait", "queue": INJECTED},
            ):
                refusal = await http.post("/v1/jobs", json=asked)
                assert 400 <= refusal.status_code < 500
                assert "x-injected" not in refusal.headers
        lines = door.log.read_text().splitlines()
        assert not [line for line in lines if line.lower().startswith(("x-injected", "<script>"))]


def _asked(path: str) -> str:
    return re.sub(r"\{\w+(:path)?\}", "x", path)


def _request(door: Door, verb: str, path: str) -> bytes:
    head = f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {door.keys['acme']}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode("latin-1")


async def test_a_hundred_connections_that_only_knock_change_nothing(tmp_path: Path) -> None:
    """Opened and closed at once, half-closed, or reset."""
    async with opened(tmp_path, keys=False, worker=False) as door:
        for _ in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            writer.transport.abort()
        async with httpx.AsyncClient(base_url=door.url) as http:
            assert (await http.get("/livez")).status_code == 200
        assert "Traceback" not in door.log.read_text()
