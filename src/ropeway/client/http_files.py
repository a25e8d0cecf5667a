"""Files behind a gateway, over HTTP(S)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from ropeway.blobs import About
from ropeway.client.files import FileBody, FileList
from ropeway.client.problems import GatewayRefused, error_of
from ropeway.domain.errors import EngineUnavailable, OutcomeUnknown

__all__ = ["HttpFiles"]

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # of each read and write, not of the whole


class HttpFiles:
    """`pool` gives the open connections, `url` is where the gateway is, `call` makes one small call, with retries."""

    def __init__(
        self, url: str, pool: Callable[[], httpx.AsyncClient], call: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        self._url = url
        self._pool = pool
        self._call = call

    async def upload(self, chunks: AsyncIterable[bytes], about: About, key: str | None) -> FileBody:
        """Once: what was sent is not there to be sent again."""
        params: dict[str, Any] = {"filename": about.filename, "purpose": about.purpose}
        if about.ttl_s is not None:
            params["expires_in"] = f"{about.ttl_s:g}"
        if about.sha256 is not None:
            params["sha256"] = about.sha256
        headers = {"Content-Type": about.content_type or "application/octet-stream"}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self._told():
            response = await self._pool().post(
                f"{self._url}/v1/files", params=params, headers=headers, content=_only(chunks), timeout=TIMEOUT
            )
        if not response.is_success:
            raise error_of(response.status_code, response.headers, response.content)
        return _decode(response, FileBody)

    async def download(self, id_: str) -> AsyncIterator[bytes]:
        url = self._url + _path(id_, "/content")
        async with self._told(), self._pool().stream("GET", url, timeout=TIMEOUT) as answer:
            if not answer.is_success:
                raise error_of(answer.status_code, answer.headers, await answer.aread())
            async for block in answer.aiter_bytes():
                yield block

    async def get(self, id_: str) -> FileBody:
        return _decode(await self._call("GET", _path(id_)), FileBody)

    async def list(self, purpose: str | None, limit: int, after: str | None) -> FileList:
        asked = {"purpose": purpose, "limit": str(limit), "after": after}
        params = {name: value for name, value in asked.items() if value}
        return _decode(await self._call("GET", "/v1/files", params=params), FileList)

    async def delete(self, id_: str) -> None:
        await self._call("DELETE", _path(id_))

    async def output(self, job_id: str) -> bytes | None:
        """A job's output from its file; None when what it names is not its output, but a file that it gave."""
        path = f"{self._url}/v1/jobs/{quote(job_id, safe='')}/result"
        async with self._told(), self._pool().stream("GET", path, timeout=TIMEOUT) as answer:
            if not answer.is_success:
                raise error_of(answer.status_code, answer.headers, await answer.aread())
            return None if "content-disposition" in answer.headers else await answer.aread()

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise EngineUnavailable(f"cannot reach {self._url}: {error or type(error).__name__}") from error
        except httpx.TransportError as error:
            raise OutcomeUnknown(f"lost {self._url} in a call: {error or type(error).__name__}") from error


async def _only(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


def _path(id_: str, rest: str = "") -> str:
    return f"/v1/files/{quote(id_, safe='')}{rest}"


def _decode(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        detail = f"{response.url} did not answer as a gateway does: {error}"
        raise GatewayRefused(detail, "unexpected_answer", response.status_code) from error
