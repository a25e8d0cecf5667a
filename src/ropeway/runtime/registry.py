"""The application: a registry of tasks and resources. It holds no engine and opens nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from ropeway.domain.job import JobOptions, check_name
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.runtime.modelling import check_models
from ropeway.runtime.resources import Resource
from ropeway.runtime.signature import Kind, read_signature, resource_names
from ropeway.runtime.task import Task

__all__ = ["App", "TaskDecorator", "TaskSettings", "is_own"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_OWN = "ropeway."
_RUNS_ON_LOOP = {"loop": True, "thread": False}


class TaskSettings(TypedDict, total=False):
    """What `@app.task(...)` takes. Durations are seconds; a job's submit may change most of them.

    name: its public name; the function's own when left out. queue: where its jobs wait; `default`.
    timeout: an attempt may run so long. queue_timeout: a job may wait so long for its first start.
    retry: when and how often a failed attempt is tried again. max_crashes: deaths of its worker that a job may cost.
    retention, failed_retention: kept so long after its end; None is for ever.
    priority: low, normal or high. cost: what a job weighs in fair sharing between tenants.
    concurrency: attempts of this task that one worker runs at once; see `runtime.slots` for the queue it needs.
    run: `loop` or `thread`, as the function itself says: `async def` runs on the loop, `def` on a thread.
    models: what the task serves on the OpenAI routes, each id once in an application; see `domain.chat`.
    """

    name: str
    queue: str
    timeout: float | None
    queue_timeout: float | None
    retry: Retry
    priority: Priority | Literal["low", "normal", "high"]
    retention: float | None
    failed_retention: float | None
    max_crashes: int
    cost: float
    concurrency: int | None
    run: Literal["loop", "thread"]
    models: Sequence[ModelCard]


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
    def __call__(self, /, **settings: Unpack[TaskSettings]) -> TaskDecorator: ...
    def __call__(self, fn: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """Declare a task.

        Raises TypeError when the function cannot be one, ValueError or InvalidRequest for a setting out of range or a
        name that is taken; the message says what to do.
        """
        unknown = settings.keys() - TaskSettings.__annotations__.keys()
        if unknown:
            raise TypeError(f"a task has no setting '{min(unknown)}': {', '.join(TaskSettings.__annotations__)}")
        if fn is None:
            return TaskDecorator(self._app, cast(TaskSettings, {**self._settings, **settings}))
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

    def add(self, fn: Callable[..., Any], settings: TaskSettings, names: Mapping[str, Any]) -> Task[..., Any, Any]:
        """What `@app.task` does; `names` are those that annotations may use beside the function's module."""
        name = check_name("task", settings.get("name", getattr(fn, "__name__", "")))
        self._check_free(name)
        signature = read_signature(name, fn, self._resources, names)
        _check_run(name, signature.kind, settings.get("run"))
        models = tuple(settings.get("models", ()))
        check_models(name, signature, models, self.cards)
        task: Task[..., Any, Any] = Task(
            fn,
            signature,
            name=name,
            queue=check_name("queue", settings.get("queue", "default")),
            priority=_priority(name, settings.get("priority", Priority.normal)),
            options=_options(name, settings),
            concurrency=_at_least_one(name, "concurrency", settings.get("concurrency")),
            models=models,
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
        raise ValueError(f"task '{task}': run is 'loop' or 'thread', not {run!r}")
    if _RUNS_ON_LOOP[run] != kind.on_loop:
        remedy = "write it as `async def`" if run == "loop" else "write it as a plain `def`"
        raise TypeError(f"task '{task}' is a {kind} and cannot run on the {run}: {remedy}")


def _priority(task: str, priority: Priority | str) -> Priority:
    if isinstance(priority, Priority):
        return priority
    if priority not in Priority.__members__:
        raise ValueError(f"task '{task}': priority is low, normal or high, not {priority!r}")
    return Priority[priority]


def _options(task: str, settings: TaskSettings) -> JobOptions:
    base = JobOptions()
    return JobOptions(
        timeout_s=_above_zero(task, "timeout", settings.get("timeout")),
        queue_timeout_s=_above_zero(task, "queue_timeout", settings.get("queue_timeout")),
        retention_s=_above_zero(task, "retention", settings.get("retention", base.retention_s)),
        failed_retention_s=_above_zero(task, "failed_retention", settings.get("failed_retention")),
        retry=settings.get("retry", base.retry),
        max_crashes=_at_least_one(task, "max_crashes", settings.get("max_crashes")) or base.max_crashes,
        cost=_above_zero(task, "cost", settings.get("cost")) or base.cost,
    )


def _above_zero(task: str, name: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"task '{task}': {name} must be above 0, not {value!r}")
    return None if value is None else float(value)


def _at_least_one(task: str, name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"task '{task}': {name} must be at least 1, not {value!r}")
    return value
