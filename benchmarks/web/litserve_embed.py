"""LitServe with the embedding model, which it batches itself, in an environment of its own: `… PORT`."""

from __future__ import annotations

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]

from benchmarks.embedding import BATCH, MAX_WAIT_S, Embedder

__all__: list[str] = []


class Embeddings(litserve.LitAPI):  # type: ignore[misc] # it is not installed where types are checked
    """As its guide to batching has it: `predict` takes the list that `batch` made, `unbatch` takes it apart."""

    def setup(self, device: str) -> None:
        self._model = Embedder()

    def decode_request(self, request) -> str:  # type: ignore[no-untyped-def] # it reads the type here
        text: str = request["input"]["text"]
        return text

    def predict(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed(texts)

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return {"output": output}


if __name__ == "__main__":
    api = Embeddings(max_batch_size=BATCH, batch_timeout=MAX_WAIT_S, api_path="/v1/jobs")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
