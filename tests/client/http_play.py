"""A gateway that is played: the answers are written down beforehand, the questions after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from ropeway.client.http import HttpTransport
from ropeway.client.transport import Order
from ropeway.client.wire import JobRequest
from ropeway.testing import seeded_random

__all__ = ["ENDED", "JOB", "ORDER", "REPLAYED", "RUNNING", "Answer", "Play", "ok", "problem"]

Answer = httpx.Response | Exception
ORDER = Order(JobRequest("greet", msgspec.Raw(b'{"name":"Ada"}')))
RUNNING = {"id": "job_1", "state": "running"}
REPLAYED = {"Idempotency-Replayed": "true"}
ENDED = {"id": "job_1", "state": "succeeded", "output": {"text": "hello"}}


class Play:
    """A gateway that gives the answers it was told, in order, and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self.asked: list[httpx.Request] = []
        self.waits: list[float] = []
        self.transport = HttpTransport(
            "http://gateway.test/ai/",
            random=seeded_random(1),
            sleep=self._sleep,
            wire=httpx.MockTransport(self._answer),
        )

    async def __aenter__(self) -> HttpTransport:
        await self.transport.open()
        return self.transport

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def ok(body: object, status: int = 200, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)


def problem(status: int, code: str, headers: dict[str, str] | None = None, **members: Any) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "as told", **members}, headers=headers)


JOB: dict[str, Any] = {
    "task": "greet",
    "queue": "hall",
    "version": 1,
    "attempt": 1,
    "priority": "normal",
    "created_at": "2026-01-01T00:00:00.000Z",
}
