"""Resources: what a worker opens once and gives to its tasks. A model, a pool of connections, a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ropeway.domain.errors import RopewayError
from ropeway.runtime.signature import Kind
from ropeway.runtime.steps import Threads

__all__ = ["OpenResources", "Resource", "ResourceFailed"]

log = logging.getLogger("ropeway.worker")

_END: Any = object()


class ResourceFailed(RopewayError):
    """A resource failed to open: the worker cannot run its tasks."""

    code = "resource_failed"


class Resource(NamedTuple):
    """How to open something, and the names of the resources that this takes."""

    name: str
    open: Callable[..., Any]
    kind: Kind
    takes: tuple[str, ...]


class OpenResources:
    """The resources that one worker has open: each opened once, when first wanted, and closed in reverse."""

    def __init__(self, declared: Mapping[str, Resource], steps: Threads) -> None:
        self._declared = declared
        self._steps = steps
        self._values: dict[str, Any] = {}
        self._closers: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._lock = asyncio.Lock()

    async def open(self, names: Iterable[str]) -> dict[str, Any]:
        """These resources by name, with all that they take. Raises ResourceFailed."""
        async with self._lock:
            return {name: await self._opened(name) for name in names}

    async def close(self) -> None:
        """Close all, the last opened first. One that fails to close is logged, and the others still close."""
        async with self._lock:
            while self._closers:
                name, closer = self._closers.pop()
                try:
                    await closer()
                except Exception:
                    log.exception("resource '%s' failed to close", name)
            self._values.clear()

    async def _opened(self, name: str) -> Any:
        if name not in self._values:
            resource = self._declared[name]
            taken = {other: await self._opened(other) for other in resource.takes}
            try:
                self._values[name] = await self._enter(resource, taken)
            except Exception as error:
                raise ResourceFailed(f"resource '{name}' failed to open: {type(error).__name__}: {error}") from error
        return self._values[name]

    async def _enter(self, resource: Resource, taken: dict[str, Any]) -> Any:
        """The value that the function gives; its closing is remembered."""
        match resource.kind:
            case Kind.coroutine:
                return await resource.open(**taken)
            case Kind.function:
                return await self._steps.step(lambda: resource.open(**taken))
            case Kind.async_generator:
                generator = resource.open(**taken)
                value = await anext(generator, _END)
                self._closers.append((resource.name, lambda: _leave(resource.name, anext(generator, _END))))
            case Kind.generator:
                generator = resource.open(**taken)
                value = await self._steps.step(lambda: next(generator, _END))
                step = self._steps.step
                self._closers.append(
                    (resource.name, lambda: _leave(resource.name, step(lambda: next(generator, _END))))
                )
        if value is _END:
            raise TypeError("it yielded nothing")
        return value


async def _leave(name: str, rest: Awaitable[Any]) -> None:
    if await rest is not _END:
        raise TypeError(f"resource '{name}' yielded twice: it yields once, and what comes after closes it")
