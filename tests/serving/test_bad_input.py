"""What is malformed is refused with a 4xx that names the fault, never a 500, and nothing of it is stored."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from serving_support import QUICK, stage

from ropeway.serving import Gateway

JSON = {"content-type": "application/json"}
DEEP = b'{"task":"free","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def body(**members: Any) -> bytes:
    return msgspec.json.encode({"task": "free", **members})


def raw(input_json: bytes) -> bytes:
    return b'{"task":"free","input":' + input_json + b"}"


# what is sent, the status, the code, and what the detail or the faults must name
BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "nothing": (b"", 400, "invalid_request", "not JSON"),
    "broken": (b'{"task":', 400, "invalid_request", "not JSON"),
    "trailing text": (b'{"task":"free"} x', 400, "invalid_request", "trailing"),
    "a list": (b"[]", 400, "invalid_request", "array"),
    "a string": (b'"x"', 400, "invalid_request", "str"),
    "a byte order mark": (b'\xef\xbb\xbf{"task":"free"}', 400, "invalid_request", "not JSON"),
    "UTF-16": ('{"task":"free"}'.encode("utf-16"), 400, "invalid_request", "not UTF-8: byte 0"),
    "bad UTF-8 in a name": (b'{"task":"\xff"}', 400, "invalid_request", "not UTF-8"),
    "bad UTF-8 in the input": (raw(b'"\xff"'), 400, "invalid_request", "not UTF-8"),
    "an overlong NUL": (raw(b'"\xc0\x80"'), 400, "invalid_request", "not UTF-8"),
    "a surrogate in bytes": (raw(b'"\xed\xa0\x80"'), 400, "invalid_request", "not UTF-8"),
    "half a surrogate pair": (raw(b'"\\ud800"'), 400, "invalid_request", "surrogate"),
    "half a surrogate pair in a tag": (body(tags=["x"]).replace(b'"x"', b'"\\udc00"'), 400, "invalid_request", ""),
    "a raw NUL": (raw(b'"\x00"'), 400, "invalid_request", "invalid character"),
    "a raw newline": (raw(b'"\n"'), 400, "invalid_request", "invalid character"),
    "NaN": (raw(b'{"a":NaN}'), 400, "invalid_request", "invalid character"),
    "Infinity": (raw(b"[-Infinity]"), 400, "invalid_request", "invalid"),
    "1e999": (raw(b'{"a":1e999}'), 422, "input_invalid", "out of range"),
    "a number of 5,000 digits": (raw(b'{"a":' + b"9" * 5000 + b"}"), 422, "input_invalid", "4300 digits"),
    "a leading zero": (raw(b"01"), 400, "invalid_request", "invalid number"),
    "depth 100,000": (DEEP, 400, "invalid_request", "more than 64 deep"),
    "depth 100,000, left open": (DEEP[:100_000], 400, "invalid_request", "more than 64 deep"),
    "depth 65": (raw(b"[" * 64 + b"]" * 64), 400, "invalid_request", "more than 64 deep"),
    "a member twice in the input": (raw(b'{"x":[{"a":1,"b":2,"a":3}]}'), 422, "input_invalid", "'a' twice"),
    "a member twice": (b'{"task":"free","task":"greet"}', 400, "invalid_request", "'task' twice"),
    "a member twice, once escaped": (raw(b'{"a":1,"\\u0061":2}'), 422, "input_invalid", "'a' twice"),
    "an unknown member": (body(state="succeeded"), 400, "invalid_request", "unknown field `state`"),
    "a tenant": (body(tenant="other"), 400, "invalid_request", "unknown field `tenant`"),
    "an unknown member of retry": (body(retry={"tries": 3}), 400, "invalid_request", "unknown field `tries`"),
    "no task": (b"{}", 400, "invalid_request", "`task`"),
    "a null task": (body(task=None), 400, "invalid_request", "task"),
    "a number as task": (body(task=7), 400, "invalid_request", "task"),
    "a task with a slash": (body(task="../etc"), 404, "task_not_found", "../etc"),
    "a queue with a NUL": (body(queue="a\x00"), 400, "invalid_request", "queue"),
    "a queue with a colon": (body(queue="a:b"), 400, "invalid_request", "queue"),
    "a queue of 200 letters": (body(queue="a" * 200), 400, "invalid_request", "queue"),
    "a negative delay": (body(delay=-1), 400, "invalid_request", "delay"),
    "a delay of text": (body(delay="1"), 400, "invalid_request", "delay"),
    "an endless delay": (body(delay=1e300), 400, "invalid_request", "delay"),
    "a delay out of range": (b'{"task":"free","delay":1e999}', 400, "invalid_request", "delay"),
    "no time to run": (body(timeout=0), 400, "invalid_request", "timeout"),
    "a timeout of a century": (body(timeout=3.2e9), 400, "invalid_request", "timeout"),
    "a negative queue timeout": (body(queue_timeout=-5), 400, "invalid_request", "queue_timeout"),
    "no time between outputs": (body(output_timeout=0), 400, "invalid_request", "output_timeout"),
    "a negative retention": (body(retention=-5), 400, "invalid_request", "retention"),
    "no attempts": (body(retry={"max_attempts": 0}), 400, "invalid_request", "max_attempts"),
    "a googol of attempts": (body(retry={"max_attempts": 10**100}), 400, "invalid_request", ""),
    "a cost of nothing": (body(cost=0), 400, "invalid_request", "cost"),
    "an unknown priority": (body(priority="urgent"), 400, "invalid_request", "priority"),
    "an unknown wish": (body(on_disconnect="explode"), 400, "invalid_request", "on_disconnect"),
    "metadata of numbers": (body(metadata={"a": 1}), 400, "invalid_request", "metadata"),
    "a tag of newlines": (body(tags=["a\nb"]), 400, "invalid_request", "tags"),
    "a hundred tags": (body(tags=[str(n) for n in range(100)]), 400, "invalid_request", "tags"),
    "ten thousand members": (body(**{f"m{n}": n for n in range(10_000)}), 400, "invalid_request", "unknown field"),
    "a megabyte and a byte": (raw(b'"' + b"x" * (1 << 20) + b'"'), 413, "payload_too_large", "1048576 bytes"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_malformed_body(name: str) -> None:
    """The right status, a problem of the right code, and the fault by its name."""
    sent, status, code, named = BODIES[name]
    async with stage() as s:
        answer = await s.http.post("/v1/jobs", content=sent, headers=JSON)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status), problem
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-should-retry"] == "false"
        assert named in problem["detail"], problem["detail"]
        assert (code == "input_invalid") == bool(problem.get("errors"))
        assert problem["error"]["message"] == problem["detail"]
        assert (await s.http.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize(
    "input_json",
    [
        b"9223372036854775808",
        b"-" + b"9" * 4000,
        b'"\\u0000"',
        b'"\\ud83d\\ude00"',
        b"[" * 63 + b"]" * 63,
        b'"' + b"[{" * 500 + b'"',
        b'{"' + b'\\"[' * 200 + b'":1}',
        b"1e308",
        b"null",
    ],
)
async def test_what_is_odd_but_json_is_kept_exactly(input_json: bytes) -> None:
    """Integers of any size, escaped NULs, brackets in strings: the worker is given the very text."""
    async with stage() as s:
        answer = await s.http.post("/v1/jobs", content=raw(input_json), headers=JSON)
        assert answer.status_code == 202, answer.text
        assert (await s.hand.take()).input == input_json.decode()


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-type": "text/plain"}, 415, "unsupported_media_type"),
        ({"content-type": ""}, 415, "unsupported_media_type"),
        ({}, 415, "unsupported_media_type"),
        ({"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"content-type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
        ({**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type"),
        ({**JSON, "content-length": "99999999"}, 413, "payload_too_large"),
        ({**JSON, "content-length": "9" * 5000}, 413, "payload_too_large"),
        ({**JSON, "content-length": "-1"}, 400, "invalid_request"),
        ({**JSON, "host": "evil.test"}, 403, "forbidden"),
        ({**JSON, "host": "gateway.test.evil.test"}, 403, "forbidden"),
        ({**JSON, "host": ""}, 403, "forbidden"),
        ({**JSON, "origin": "null"}, 403, "forbidden"),
        ({**JSON, "origin": "https://evil.test"}, 403, "forbidden"),
        ({"content-type": "application/x-ndjson", "accept": "text/event-stream"}, 406, "stream_not_supported"),
    ],
)
async def test_headers_that_are_refused(headers: dict[str, str], status: int, code: str) -> None:
    """Kinds of body that are not read, hosts and origins that are not ours: before the body is looked at."""
    async with stage() as s, s.call("POST", "/v1/jobs", headers=headers, body=b'{"task":"free"}') as call:
        await call.done()
        assert (call.status, msgspec.json.decode(call.received)["code"]) == (status, code)


@pytest.mark.parametrize("host", ["gateway.test", "GATEWAY.test:8000"])
@pytest.mark.parametrize("origin", [None, "own"])
async def test_our_own_pages_may_call(host: str, origin: str | None) -> None:
    """The host allowed, on any port; a page that came from it."""
    headers = {**JSON, "host": host, **({"origin": f"https://{host}"} if origin else {})}
    async with stage() as s, s.call("POST", "/v1/jobs", headers=headers, body=b'{"task":"free"}') as call:
        await call.done()
        assert call.status == 202


async def test_another_origin_may_be_allowed() -> None:
    """By name."""
    options = msgspec.structs.replace(QUICK, allowed_origins=("https://app.test",))
    async with stage(options=options) as s:
        for origin, status in (("https://app.test", 202), ("http://app.test", 403)):
            answer = await s.http.post("/v1/jobs", json={"task": "free"}, headers={"origin": origin})
            assert answer.status_code == status


async def test_a_page_without_an_origin_is_no_page_of_ours() -> None:
    """`Origin: null` is what a sandboxed page sends; it is not the same as a host that is not named either."""
    options = msgspec.structs.replace(QUICK, allowed_hosts=None)
    headers = {**JSON, "host": "", "origin": "null"}
    async with (
        stage(options=options) as s,
        s.call("POST", "/v1/jobs", headers=headers, body=b'{"task":"free"}') as call,
    ):
        await call.done()
        assert call.status == 403


class Drip:
    """An ASGI request whose body comes in pieces, as the test says."""

    def __init__(self, headers: dict[str, str], *pieces: bytes, ends: str = "whole") -> None:
        self.headers = headers
        self.pieces = list(pieces)
        self.ends = ends
        self.taken = 0
        self.status = 0
        self.body = b""

    async def send_to(self, gateway: Gateway) -> dict[str, Any]:
        headers = [(name.encode(), value.encode()) for name, value in {"host": "gateway.test", **self.headers}.items()]
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": headers}
        async with asyncio.timeout(10):
            await gateway(scope, self._receive, self._send)
        return msgspec.json.decode(self.body) if self.body else {}

    async def _receive(self) -> dict[str, Any]:
        self.taken += 1
        if self.pieces:
            return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}
        if self.ends == "never":
            await asyncio.Event().wait()
        if self.ends == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


async def test_an_unannounced_body_is_counted_while_it_comes() -> None:
    """Chunked, or with a Content-Length that lies: reading stops at the limit."""
    async with stage() as s:
        drip = Drip({**JSON, "content-length": "10"}, *[b"x" * 65_536] * 1000)
        problem = await drip.send_to(s.gateway)
        assert (drip.status, problem["code"], drip.taken) == (413, "payload_too_large", 17)


async def test_a_body_that_does_not_come_is_given_up() -> None:
    """408 after the deadline, and worth another try."""
    options = msgspec.structs.replace(QUICK, body_deadline_s=0.01)
    async with stage(options=options) as s:
        drip = Drip(JSON, b'{"task":', ends="never")
        problem = await drip.send_to(s.gateway)
        assert (drip.status, problem["code"], problem["retryable"]) == (408, "request_timeout", True)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing() -> None:
    """Nobody is answered, nothing is stored."""
    async with stage() as s:
        drip = Drip(JSON, b'{"task":"free"}', ends="gone")
        await drip.send_to(s.gateway)
        assert drip.status == 0
        assert (await s.http.get("/v1/jobs")).json()["data"] == []


async def test_a_body_in_pieces_is_one_body() -> None:
    """However it is cut."""
    async with stage() as s:
        drip = Drip(JSON, *[bytes([byte]) for byte in b'{"task":"free","input":"caf\xc3\xa9"}'])
        job = await drip.send_to(s.gateway)
        assert (drip.status, (await s.job(job["id"]))["input"]) == (202, "café")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("GET", "/v1/jobs/job_x/nothing", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("PATCH", "/v1/jobs/job_x", 405, "method_not_allowed"),
        ("HEAD", "/v1/jobs/job_x/events", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/job_x", 404, "job_not_found"),
        ("GET", "/v1/jobs/%00", 404, "job_not_found"),
        ("GET", "/v1/jobs/a'b", 404, "job_not_found"),
        ("GET", "/v1/jobs/" + "x" * 5000, 404, "job_not_found"),
        ("GET", "/v1/jobs/job_x/events", 404, "job_not_found"),
        ("GET", "/v1/jobs/job_x/result", 404, "job_not_found"),
        ("GET", "/v1/jobs/job_x?wait=5", 404, "job_not_found"),
        ("POST", "/v1/jobs/job_x/cancel", 404, "job_not_found"),
        ("POST", "/v1/jobs/job_x/retry", 404, "job_not_found"),
        ("DELETE", "/v1/jobs/job_x", 404, "job_not_found"),
        ("DELETE", "/v1/jobs/job_x?force=1", 404, "job_not_found"),
        ("DELETE", "/v1/jobs/job_x?force=yes", 400, "invalid_request"),
        ("GET", "/v1/jobs/job_x?wait=nan", 400, "invalid_request"),
        ("GET", "/v1/jobs/job_x?wait=-1", 400, "invalid_request"),
        ("GET", "/v1/jobs/job_x?wait=1e9", 400, "invalid_request"),
        ("GET", "/v1/jobs?limit=0", 400, "invalid_request"),
        ("GET", "/v1/jobs?limit=1e3", 400, "invalid_request"),
        ("GET", "/v1/jobs?limit=99999999999999999999", 400, "invalid_request"),
        ("GET", "/v1/jobs?state=done", 400, "invalid_request"),
        ("GET", "/v1/jobs?cursor=nonsense", 400, "invalid_request"),
        ("GET", "/v1/jobs?cursor=99999999999999999999999", 400, "invalid_request"),
        ("GET", "/v1/jobs?queue=a:b", 400, "invalid_request"),
        ("GET", "/v1/jobs?tag=%00", 400, "invalid_request"),
        ("GET", "/v1/jobs?stat=failed", 400, "invalid_request"),
        ("GET", "/v1/queues/nowhere", 404, "queue_not_found"),
        ("GET", "/v1/queues/a%20b", 400, "invalid_request"),
        ("POST", "/v1/queues/a%20b/pause", 400, "invalid_request"),
        ("POST", "/v1/queues/nowhere/purge", 404, "queue_not_found"),
        ("GET", "/v1/tasks/nobody", 404, "task_not_found"),
        ("GET", "/v1/events?after=x", 400, "invalid_request"),
    ],
)
@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_routes_that_refuse(engine: str, method: str, path: str, status: int, code: str, tmp_path: Any) -> None:
    """A problem everywhere: for paths and methods that are not there, ids that cannot be, parameters out of range."""
    async with stage(engine, tmp_path) as s:
        answer = await s.http.request(method, path)
        assert answer.status_code == status
        if method == "HEAD":
            assert answer.content == b""
            return
        assert (answer.json()["code"], answer.headers["content-type"]) == (code, "application/problem+json")
        assert ("allow" in answer.headers) == (status == 405)
        assert answer.json()["instance"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("cancel", b'{"reason": 5}', 400),
        ("cancel", b'{"why": "x"}', 400),
        ("cancel", b'{"reason": "\\u0000"}', 400),
        ("cancel", b'{"reason": "a", "reason": "b"}', 400),
        ("cancel", b"[" * 100, 400),
        ("retry", b'{"task": "x"}', 400),
        ("retry", b"nonsense", 400),
    ],
)
async def test_small_bodies_are_read_as_strictly(path: str, content: bytes, status: int) -> None:
    """They may be left out, not misspelt."""
    async with stage() as s:
        job_id = await s.submit()
        answer = await s.http.post(f"/v1/jobs/{job_id}/{path}", content=content, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (status, "invalid_request")
        plain = await s.http.post(f"/v1/jobs/{job_id}/{path}", content=b"{}", headers={"content-type": "text/plain"})
        assert plain.status_code == 415
