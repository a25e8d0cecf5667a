"""LitServe with the tokens of the other streams, in its own virtual environment: `python litserve.py PORT`.

Its asynchronous form, so that one worker process streams to many readers; the model is the generator itself.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import litserve  # type: ignore[import-not-found]

from benchmarks.work import tokens

__all__: list[str] = []


class Tokens(litserve.LitAPI):  # type: ignore[misc] # it is not installed where types are checked
    """A model that says when it said it."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    async def decode_request(self, request) -> dict[str, Any]:  # type: ignore[no-untyped-def] # it reads the type here
        asked: dict[str, Any] = request["input"]
        return asked

    async def predict(self, asked: dict[str, Any]) -> AsyncIterator[str]:
        async for token in tokens(**asked):
            yield f"event: output.delta\ndata: {token}\n\n"
        yield "event: job.succeeded\ndata: {}\n\n"

    async def encode_response(self, output: AsyncIterator[str]) -> AsyncIterator[str]:
        async for block in output:
            yield block


if __name__ == "__main__":
    api = Tokens(stream=True, enable_async=True, api_path="/v1/jobs")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
