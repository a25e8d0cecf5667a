"""`@app.task(batch=Batch(...))`: keeps what a job comes to for type checkers.

What a job submits they cannot know: no type says "the same parameters, each an item of its list". It is checked when
the job is submitted, as ever.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, overload

from ropeway.runtime.batching.settings import Batch, Step
from ropeway.runtime.settings import TaskSettings
from ropeway.runtime.task import Task

__all__ = ["BatchDecorator"]

T = TypeVar("T")


class _Adds(Protocol):
    def add(
        self, fn: Callable[..., Any], settings: TaskSettings, names: Mapping[str, Any], batch: Batch | None
    ) -> Task[..., Any, Any]: ...


class BatchDecorator:
    """Declares a function that serves many jobs in a call."""

    def __init__(self, app: _Adds, settings: TaskSettings, batch: Batch) -> None:
        self._app = app
        self._settings = settings
        self._batch = batch

    @overload
    def __call__(  # type: ignore[overload-overlap] # as for single jobs: a stream of strings comes to one
        self, fn: Callable[..., AsyncIterator[Step[str]]], /
    ) -> Task[..., AsyncIterator[Step[str]], str]: ...
    @overload
    def __call__(self, fn: Callable[..., AsyncIterator[Step[T]]], /) -> Task[..., AsyncIterator[Step[T]], list[T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[..., Iterator[Step[str]]], /
    ) -> Task[..., Iterator[Step[str]], str]: ...
    @overload
    def __call__(self, fn: Callable[..., Iterator[Step[T]]], /) -> Task[..., Iterator[Step[T]], list[T]]: ...
    @overload
    def __call__(
        self, fn: Callable[..., Coroutine[Any, Any, Sequence[T | Exception]]], /
    ) -> Task[..., Coroutine[Any, Any, Sequence[T | Exception]], T]: ...
    @overload
    def __call__(self, fn: Callable[..., Sequence[T | Exception]], /) -> Task[..., Sequence[T | Exception], T]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Any:
        """Declare the task. Raises as `@app.task` does, and TypeError where the function takes or gives no lists."""
        return self._app.add(fn, self._settings, sys._getframe(1).f_locals, self._batch)
