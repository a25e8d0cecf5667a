"""What this process hears of the others, fired on its own board: by its socket, or where it has none, by looking.

Looking: four times a second one reads SQLite's `data_version`, which changes with every other process's transaction.
That is for platforms without Unix sockets, and for files beside which no directory of ours can be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ropeway.engines.hints import Board
from ropeway.engines.sqlite.wake import EVERYTHING, Bell

__all__ = ["Hearing"]

_LOOK_S = 0.25


class Hearing:
    """Fires the board's topics when another process has changed what they stand for."""

    def __init__(self, board: Board, bell: Bell | None, data_version: Callable[[], int]) -> None:
        self._board = board
        self._bell = bell
        self._data_version = data_version
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._bell is not None:
            self._loop.add_reader(self._bell.fileno(), self._hear)
        else:
            self._seen = self._data_version()
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def stop(self) -> None:
        if self._bell is not None:
            self._loop.remove_reader(self._bell.fileno())
            self._bell.close()
        if self._timer is not None:
            self._timer.cancel()

    def _hear(self) -> None:
        if self._bell is None:
            return
        topics = self._bell.heard()
        self._board.fire(self._board.topics() if EVERYTHING in topics else filter(self._board.hears, topics))

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        version = self._data_version()
        if version != self._seen:
            self._seen = version
            self._board.fire(self._board.topics())
