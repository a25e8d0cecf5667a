"""The rooms of the OpenAI routes, with what they share."""

from __future__ import annotations

from typing import Any

from ropeway.serving.openai.batch_keeper import BatchKeeper
from ropeway.serving.openai.batch_record import Shelf
from ropeway.serving.openai.batches import BatchRoutes
from ropeway.serving.openai.calls import Calls
from ropeway.serving.openai.chat import ChatRoutes
from ropeway.serving.openai.chat_view import ChatView
from ropeway.serving.openai.departures import Departures
from ropeway.serving.openai.embeddings import BASE64_VIEW, FLOAT_VIEW, EmbeddingRoutes
from ropeway.serving.openai.intake import Intake
from ropeway.serving.openai.response_view import ResponseView
from ropeway.serving.openai.responses import ResponseRoutes
from ropeway.serving.openai.served import ModelRoutes
from ropeway.serving.openai.views import View
from ropeway.serving.parts import Parts

__all__ = ["OpenAI"]


class OpenAI:
    """One gateway's OpenAI routes. `calls` answers with views of jobs, also for `/v1/jobs/{id}/result?as=…`."""

    def __init__(self, parts: Parts) -> None:
        views: tuple[View, ...] = (ChatView(), ResponseView(), FLOAT_VIEW, BASE64_VIEW)
        self._departures = Departures(parts)
        self.calls = Calls(parts, self._departures, {view.name: view for view in views})
        intake = Intake(parts, self._departures)
        shelf = Shelf(parts.engine)
        self._keeper = BatchKeeper(parts, shelf)
        self.rooms: tuple[Any, ...] = (
            ModelRoutes(parts),
            ChatRoutes(parts, intake, self.calls, self._departures),
            EmbeddingRoutes(parts, intake, self.calls),
            ResponseRoutes(parts, intake, self.calls, self._departures),
            BatchRoutes(parts, shelf, self._keeper),
        )

    def start(self) -> None:
        """Go on with batches that nobody goes on with, from now on. The engine is open."""
        self._keeper.start()

    async def close(self) -> None:
        """Settle what becomes of calls whose clients have just left, and leave batches to others."""
        await self._keeper.close()
        await self._departures.close()
