"""Models in the midst of your own task: what the resources that `local` and `upstream` open can do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from ropeway.domain.chat import ChatDelta, ChatRequest
from ropeway.runtime.context import Context

__all__ = ["ChatModel", "EmbeddingModel"]


class ChatModel(Protocol):
    """The resource `chat_model` of `local`, and `upstream` of `upstream`."""

    def chat(self, request: ChatRequest, ctx: Context, /) -> AsyncGenerator[str | ChatDelta, None]:
        """The pieces of an answer as they come; what it took is told to `ctx`. Close it: that frees the model.

        Raises Fail or RetryAfter with the codes `input_invalid`, `provider_error` and `provider_rate_limited`.
        """
        ...


class EmbeddingModel(Protocol):
    """The resource `embedding_model` of `local`."""

    async def vectors(self, texts: Sequence[str], /) -> list[list[float]]:
        """A vector of length 1 for each text, in their order. What is beyond the model's tokens is cut off."""
        ...
