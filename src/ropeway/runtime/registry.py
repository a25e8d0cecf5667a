"""The application: a registry of tasks and resources. It holds no engine and opens nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, Unpack, cast, overload

from ropeway.domain.job import check_name
from ropeway.domain.rank import Priority
from ropeway.domain.worker import TaskCard
from ropeway.runtime.batching.decorator import BatchDecorator
from ropeway.runtime.batching.settings import Batch
from ropeway.runtime.batching.shape import batching_of, itemwise
from ropeway.runtime.declaring import Declaration, DeclarationSettings, declaration_of
from ropeway.runtime.modelling import check_models
from ropeway.runtime.origin import Origin
from ropeway.runtime.process.settings import check_needs, isolation_of, needs_of
from ropeway.runtime.resources import Resource
from ropeway.runtime.settings import BatchSettings, TaskSettings, at_least_one, cache_of, options_of, priority_of
from ropeway.runtime.signature import Kind, read_signature, resource_names
from ropeway.runtime.task import Task

__all__ = ["App", "TaskDecorator", "TaskSettings", "is_own"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
W = TypeVar("W", bound=Task[..., Any, Any])

_OWN = "ropeway."
_RUNS_ON_LOOP = {"loop": True, "thread": False, "process": False}


class TaskDecorator:
    """`@app.task`, bare or with settings. It keeps the function's signature for type checkers."""

    def __init__(self, app: App, settings: TaskSettings) -> None:
        self._app = app
        self._settings = settings

    # A function that is a generator of strings comes to one string, of anything else to a list. mypy sees the overlap.
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[str]], /) -> Task[P, AsyncIterator[str], str]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[T]], /) -> Task[P, AsyncIterator[T], list[T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Iterator[str]], /) -> Task[P, Iterator[str], str]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, fn: Callable[P, Iterator[T]], /) -> Task[P, Iterator[T], list[T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, Coroutine[Any, Any, T], T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Task[P, T, T]: ...
    @overload
    def __call__(self, /, **settings: Unpack[BatchSettings]) -> BatchDecorator: ...
    @overload
    def __call__(self, /, **settings: Unpack[TaskSettings]) -> TaskDecorator: ...
    def __call__(self, fn: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """Declare a task.

        Raises TypeError when the function cannot be one, ValueError or InvalidRequest for a setting out of range or a
        name that is taken; the message says what to do.
        """
        unknown = settings.keys() - BatchSettings.__annotations__.keys()
        if unknown:
            raise TypeError(f"a task has no setting '{min(unknown)}': {', '.join(BatchSettings.__annotations__)}")
        if fn is None:
            batch = settings.pop("batch", None)
            whole = cast(TaskSettings, {**self._settings, **settings})
            _refuse_own(whole.get("name", ""))
            return TaskDecorator(self._app, whole) if batch is None else BatchDecorator(self._app, whole, batch)
        _refuse_own(self._settings.get("name", getattr(fn, "__name__", "")))
        return self._app.add(fn, self._settings, sys._getframe(1).f_locals)


class App:
    """The tasks and resources of an application.

    app = App()

    @app.task
    async def greet(name: str) -> str:
        return f"Hello, {name}!"
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any, Any]] = {}
        self._resources: dict[str, Resource] = {}
        self._schedules: dict[str, Declaration] = {}
        self.origin = Origin(self, sys._getframe(1).f_globals.get("__name__", ""))
        self.task = TaskDecorator(self, {})

    @property
    def tasks(self) -> Mapping[str, Task[..., Any, Any]]:
        """The tasks by name."""
        return MappingProxyType(self._tasks)

    @property
    def resources(self) -> Mapping[str, Resource]:
        """The resources by name, each after those it takes."""
        return MappingProxyType(self._resources)

    @property
    def schedules(self) -> tuple[Declaration, ...]:
        """The schedules that are declared here."""
        return tuple(self._schedules.values())

    @property
    def cards(self) -> list[TaskCard]:
        """The catalogue: what callers may know of each task. Ropeway's own are not for them to submit."""
        return [task.card for name, task in self._tasks.items() if not is_own(name)]

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues on which tasks are declared."""
        return tuple(dict.fromkeys(task.card.queue for task in self._tasks.values()))

    def copy(self) -> App:
        """Another application with the same tasks and resources; what is added to it is not in this one."""
        other = App()
        other._tasks.update(self._tasks)
        other._resources.update(self._resources)
        other._schedules.update(self._schedules)
        other.origin = self.origin
        return other

    def resource(self, fn: F) -> F:
        """Declare something that a worker opens once, before its first job, and closes after its last.

        Tasks and other resources take it by naming a parameter after it. The function is an (async) generator that
        yields it once and closes it after, or a plain or async function that returns it. Blocking ones run on a thread.
        Declare it above what takes it. Raises TypeError or ValueError when it cannot be one.
        """
        name = fn.__name__
        self._check_free(name)
        for task in self._tasks.values():
            if name in task.input.names:
                raise ValueError(
                    f"task '{task.name}' takes '{name}' as input already: declare resource '{name}' above it"
                )
        self._resources[name] = Resource(name, fn, Kind.of(fn), resource_names(name, fn, self._resources))
        return fn

    @overload
    def schedule(self, task: W, /, **settings: Unpack[DeclarationSettings]) -> W: ...
    @overload
    def schedule(self, /, **settings: Unpack[DeclarationSettings]) -> Callable[[W], W]: ...
    def schedule(self, task: Any = None, /, **settings: Any) -> Any:
        """Have a task submitted again and again, for as long as a worker of this application is there.

        app.schedule(report, cron="30 6 * * 1-5", timezone="Europe/Berlin", input={"day": "yesterday"})

        Above `@app.task` it is a decorator. A second schedule of a task needs a `name`. See `DeclarationSettings`.
        Raises InvalidRequest for what cannot be, InputInvalid for its input, ValueError for a name that is taken.
        """
        if task is None:
            return partial(self.schedule, **settings)
        if task not in self._tasks.values():
            raise TypeError(f"{task!r} is no task of this application: put `@app.task` below `@app.schedule`")
        declared = declaration_of(task, **settings)
        if declared.id in self._schedules:
            raise ValueError(f"there is a schedule '{declared.name}' already: give this one another name")
        self._schedules[declared.id] = declared
        return task

    def add(
        self,
        fn: Callable[..., Any],
        settings: TaskSettings,
        names: Mapping[str, Any],
        batch: Batch | None = None,
    ) -> Task[..., Any, Any]:
        """What `@app.task` does; `names` are those that annotations may use beside the function's module."""
        name = check_name("task", settings.get("name", getattr(fn, "__name__", "")))
        self._check_free(name)
        signature = read_signature(name, fn, self._resources, names, batched=batch is not None)
        _check_run(name, signature.kind, settings.get("run"))
        if batch is not None:
            signature = itemwise(name, signature)
        queue = check_name("queue", settings.get("queue", "default"))
        needs = needs_of(name, settings)
        check_needs(name, queue, needs, self.cards)
        models = tuple(settings.get("models", ()))
        check_models(name, signature, models, self.cards)
        task: Task[..., Any, Any] = Task(
            fn,
            signature,
            name=name,
            queue=queue,
            priority=priority_of(name, settings.get("priority", Priority.normal)),
            options=options_of(name, settings),
            concurrency=at_least_one(name, "concurrency", settings.get("concurrency")),
            models=models,
            cache=cache_of(name, settings.get("cache")),
            batching=None if batch is None else batching_of(name, signature, batch),
            run=settings.get("run"),
            isolation=isolation_of(name, settings, batched=batch is not None),
            needs=needs,
        )
        self._tasks[name] = task
        return task

    def _check_free(self, name: str) -> None:
        taken = "task" if name in self._tasks else "resource" if name in self._resources else None
        if taken is not None:
            raise ValueError(f"there is a {taken} '{name}' already: give this one another name")


def is_own(task: str) -> bool:
    """Whether a task of this name is Ropeway's own: nobody announces it, and nobody can submit to it."""
    return task.startswith(_OWN)


def _refuse_own(task: str) -> None:
    if is_own(task):
        raise ValueError(f"task '{task}': names that begin with '{_OWN}' are Ropeway's own")


def _check_run(task: str, kind: Kind, run: str | None) -> None:
    if run is None:
        return
    if run not in _RUNS_ON_LOOP:
        raise ValueError(f"task '{task}': run is 'loop', 'thread' or 'process', not {run!r}")
    if _RUNS_ON_LOOP[run] != kind.on_loop:
        remedy = "write it as `async def`" if run == "loop" else "write it as a plain `def`"
        where = "in a process" if run == "process" else f"on the {run}"
        raise TypeError(f"task '{task}' is a {kind} and cannot run {where}: {remedy}")
