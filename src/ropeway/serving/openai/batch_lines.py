"""The lines of a batch: as they come in, the jobs that they are, and as they go out. A chunk at a time is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import msgspec

from ropeway.blobs import Files
from ropeway.domain.caller import Caller
from ropeway.domain.errors import JobFailed, RopewayError
from ropeway.domain.file import FileRecord
from ropeway.domain.job import Job, NewJob
from ropeway.domain.lifecycle import State
from ropeway.serving.openai.batch_record import Batch, Fault
from ropeway.serving.openai.chat import chat_call
from ropeway.serving.openai.chat_view import ChatView
from ropeway.serving.openai.embeddings import BASE64_VIEW, FLOAT_VIEW, embedding_call
from ropeway.serving.openai.failures import failed, failure
from ropeway.serving.openai.intake import digest, job_of_call
from ropeway.serving.openai.response_view import ResponseView
from ropeway.serving.openai.responses import response_call
from ropeway.serving.openai.views import View
from ropeway.serving.parts import Parts
from ropeway.serving.problems import Problem, problem_of

__all__ = ["ENDPOINTS", "Line", "Result", "check_line", "chunks_of", "job_id_of_line", "job_of_line", "result_of"]

CHUNK_LINES = 100
KEPT_BEYOND_S = 86_400.0  # a job's result is kept so long beyond the batch's window, until the files are written

_READERS = {"/v1/chat/completions": chat_call, "/v1/embeddings": embedding_call, "/v1/responses": response_call}
_VIEWS: dict[str, View] = {
    "/v1/chat/completions": ChatView(),
    "/v1/embeddings": FLOAT_VIEW,
    "/v1/responses": ResponseView(),
}
ENDPOINTS = tuple(_READERS)

_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct, frozen=True):
    """One line of the input file."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class Result(NamedTuple):
    """What a line came to: its own line in the output, or in the errors."""

    text: bytes
    is_good: bool


class _Encoding(msgspec.Struct, frozen=True):
    encoding_format: str | None = None


_decode_line = msgspec.json.Decoder(Line).decode


async def chunks_of(files: Files, file: FileRecord, first: int = 0) -> AsyncGenerator[list[tuple[int, bytes]], None]:
    """The lines from number `first`, a chunk at a time, each with its number; empty lines do not count."""
    chunk: list[tuple[int, bytes]] = []
    async for n, line in _numbered(files, file):
        if n >= first:
            chunk.append((n, line))
        if len(chunk) >= CHUNK_LINES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _numbered(files: Files, file: FileRecord) -> AsyncIterator[tuple[int, bytes]]:
    n, rest = 0, b""
    async for block in files.read(file):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield n, line
                n += 1
        await asyncio.sleep(0)  # a block may hold thousands of lines: others go first
    if rest.strip():
        yield n, rest


def check_line(n: int, text: bytes, endpoint: str, seen: set[bytes], most_bytes: int) -> Fault | None:
    """What is wrong with the frame of a line; what its body asks is its job's affair."""
    if len(text) > most_bytes:
        return Fault("payload_too_large", f"the line has more than {most_bytes} bytes", n + 1)
    try:
        line = _decode_line(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Fault("invalid_json_line", f"the line is no request: {error}", n + 1)
    if line.method != "POST":
        return Fault("invalid_method", f"method is POST, not {line.method[:20]!r}", n + 1, "method")
    if line.url != endpoint:
        return Fault("mismatched_url", f"url is {line.url[:80]!r}, but the batch is for {endpoint}", n + 1, "url")
    name = line.custom_id.encode()
    if name in seen or not 1 <= len(name) <= 512:
        return Fault(
            "duplicate_custom_id", f"custom_id {line.custom_id[:80]!r} is not new, or not 1 to 512 bytes", n + 1
        )
    seen.add(name)
    return None


def job_id_of_line(batch: Batch, n: int) -> str:
    """The id of a line's job: who goes on with a batch knows all of them."""
    return f"job_{batch.created_at_ms:012x}{digest(batch.id.encode(), b'%d' % n)[:20]}"


async def job_of_line(parts: Parts, batch: Batch, n: int, text: bytes) -> NewJob:
    """The job that a line is. Raises what its call would."""
    line = _decode_line(text)
    caller: Caller = batch.caller
    call = await _READERS[line.url](parts, caller.tenant, bytes(line.body))
    if call.body.stream:
        call = call._replace(body=msgspec.structs.replace(call.body, stream=False))
    if call.body.service_tier is None:
        call = call._replace(body=msgspec.structs.replace(call.body, service_tier="flex"))
    call = call._replace(on_disconnect="continue")
    job = job_of_call(parts, caller, call, f"{batch.id}:{n}", job_id_of_line(batch, n))
    window_s = (batch.expires_at_ms - batch.created_at_ms) / 1000
    kept_s = job.options.retention_s
    if kept_s is not None:
        kept_s = max(kept_s, window_s + KEPT_BEYOND_S)
    return msgspec.structs.replace(job, options=msgspec.structs.replace(job.options, retention_s=kept_s))


async def result_of(parts: Parts, batch: Batch, n: int, text: bytes, job: Job | None, problem: str | None) -> Result:
    """The line that goes out for line `n`, its job and its problem."""
    line = _decode_line(text)
    if problem is not None:
        refused = msgspec.json.decode(problem, type=Problem)
        return _failure(line, refused.instance, refused)
    if job is None or not job.state.terminal:
        is_gone = job is None and n < batch.submitted
        said = "the result is gone" if is_gone else f"the batch was {batch.ending} before this request had ended"
        error = {"code": "job_purged" if is_gone else f"batch_{batch.ending}", "message": said}
        return _failure(line, job_id_of_line(batch, n), None, error)
    if job.state is not State.succeeded:
        return _failure(line, job.id, failure(job))
    try:
        body = _view_of(line).body(await parts.filled(job))
    except JobFailed as error:
        return _failure(line, job.id, failed(job.id, error.error))
    except RopewayError as error:
        return _failure(line, job.id, problem_of(error))
    response = {"status_code": 200, "request_id": _request(job.id), "body": msgspec.Raw(body)}
    return Result(_out(line, job.id, response, None), True)


def _view_of(line: Line) -> View:
    if line.url == "/v1/embeddings":
        asked = msgspec.json.decode(line.body, type=_Encoding)
        return BASE64_VIEW if asked.encoding_format == "base64" else FLOAT_VIEW
    return _VIEWS[line.url]


def _failure(line: Line, id_: str, problem: Problem | None, error: dict[str, str] | None = None) -> Result:
    response = None
    if problem is not None:
        body = {"error": problem.error}
        response = {"status_code": problem.status, "request_id": _request(id_), "body": body}
    return Result(_out(line, id_, response, error), False)


def _out(line: Line, id_: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    suffix = id_.removeprefix("job_").removeprefix("req_")
    out = {"id": f"batch_req_{suffix}", "custom_id": line.custom_id, "response": response, "error": error}
    return _encode(out) + b"\n"


def _request(id_: str) -> str:
    return id_.replace("job_", "req_")
