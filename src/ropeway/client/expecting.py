"""Ends that are waited for from before the job's submit: the hint cannot be missed, so nobody needs to look first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ropeway.engines.hints import Listener

__all__ = ["Expected"]

MOST = 256  # jobs submitted one by one whose results were not asked for yet: those before are looked at when they are


class Expected:
    """Listeners to the ends of the last jobs that were submitted one by one, each until somebody takes it.

    There are none before `wake`: a program that asks for no result shall not hear of every end there is.
    """

    def __init__(self, listen: Callable[[str], Listener]) -> None:
        self._listen = listen
        self._is_awake = False
        self._listeners: OrderedDict[str, Listener] = OrderedDict()

    def wake(self) -> None:
        """Somebody asks for results here."""
        self._is_awake = True

    def add(self, job_id: str) -> None:
        """A job is about to be submitted."""
        if not self._is_awake:
            return
        self._listeners[job_id] = self._listen(f"end:{job_id}")
        if len(self._listeners) > MOST:
            self._listeners.popitem(last=False)[1].close()

    def drop(self, job_id: str) -> None:
        """It was not: there is another job, or none."""
        listener = self.take(job_id)
        if listener is not None:
            listener.close()

    def take(self, job_id: str) -> Listener | None:
        """The listener that stands since before the job was submitted, if there is one; it is the caller's to close."""
        return self._listeners.pop(job_id, None)

    def close(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
