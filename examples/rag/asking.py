"""A question is two jobs: one that finds, and one that answers from what was found.

The first waits with those of everybody else for a call of the embedding model, which serves all of them; the second is
held until it has ended, and then waits for a place at the chat model, of which there are few. Were they one job, no
more questions could be embedded together than are answered at once.
"""

from __future__ import annotations

from typing import Any

from examples.rag.settings import ANSWER, FIND
from ropeway import Client, JobHandle

__all__ = ["ask"]


async def ask(client: Client, query: str, key: str | None = None) -> JobHandle[Any]:
    """The job of the answer. With the same `key` it is the same, however often it is asked. Raises as `submit` does."""
    finding = client.with_options(idempotency_key=f"{key}:{FIND}") if key else client
    answering = client.with_options(idempotency_key=key) if key else client
    found = await finding.submit(FIND, query=query)
    return await answering.submit(ANSWER, query=query, sources=found.output)
