"""A chat model in this process: llama.cpp's own server, on a port of the loopback that only we can use.

It is asked as any provider is (`upstream`), so a cancel, which closes the connection, frees its slot at once, and its
counts of tokens and its refusals are the same. Its threads are C++: Python's lock is not held while it computes.
"""

from __future__ import annotations

import os
import secrets
from importlib import import_module
from pathlib import Path
from typing import Any

from ropeway.models.keys import ModelUnavailable, Secret

__all__ = ["LlamaServer", "spare_threads"]

LOOPBACK = "127.0.0.1"
QUIET = 0  # llama.cpp's verbosity: errors alone


def spare_threads() -> int:
    """One less than there are cores: these threads spin, and with a core for nobody else all of them starve."""
    return max(1, len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)) - 1)


class LlamaServer:
    """A GGUF model that is loaded and served. Loading blocks for a second or more: make and close it on a thread.

    Args:
        slots: answers that are generated at once, in one batch.
        context_tokens: of each slot, a prompt and its answer together.

    Raises ModelUnavailable when the runtime or the file is missing, or the file is no model.
    """

    def __init__(self, gguf: Path, *, slots: int, context_tokens: int, threads: int | None = None) -> None:
        if not gguf.is_file():
            raise ModelUnavailable(f"there is no model file {gguf}")
        runtime = _runtime()
        self.key = Secret(secrets.token_urlsafe(24))
        params = runtime.CommonParams()
        params.model.path = str(gguf)
        params.n_parallel = slots
        params.n_ctx = slots * context_tokens
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or spare_threads()
        params.hostnames, params.port, params.api_keys = [LOOPBACK], 0, [self.key.reveal()]
        params.ui = params.endpoint_slots = False
        params.verbosity = QUIET
        try:
            self._server: Any = runtime.Server(params)
        except Exception as error:
            raise ModelUnavailable(f"{gguf} could not be loaded as a GGUF model: {error}") from error
        self.url = f"{self._server.listening_address}/v1"

    def close(self) -> None:
        """Stop it and give its memory back."""
        self._server = None


def _runtime() -> Any:
    try:
        return import_module("xllamacpp")
    except ModuleNotFoundError:
        raise ModelUnavailable("a local chat model needs llama.cpp: pip install 'ropeway[local]'") from None
