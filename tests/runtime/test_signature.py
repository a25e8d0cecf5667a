"""Declaring tasks: which parameters are input, what the worker gives, and what is refused at once, with a remedy."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.rank import Priority
from ropeway.domain.retry import Retry
from ropeway.runtime import App, Context, given

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

    import ropeway.runtime as only_for_checkers


class Model:
    """Something that JSON cannot carry."""


def input_names(app: App, task: str) -> list[str]:
    return list(msgspec.json.decode(app.tasks[task].card.input_schema)["properties"])


def test_a_bare_task_takes_its_name_and_the_default_settings() -> None:
    """The function's name is the task's; it waits in `default` and runs where its kind says."""
    app = App()

    @app.task
    async def greet(name: str) -> str:
        """Say hello.

        To anyone.
        """
        return name

    card = app.tasks["greet"].card
    assert (card.name, card.queue, card.run, card.streams) == ("greet", "default", "loop", False)
    assert card.doc == "Say hello.\n\nTo anyone."
    assert (greet.__name__, greet.name) == ("greet", "greet")


def test_settings_become_the_options_of_its_jobs() -> None:
    """What the decorator says holds for every job that does not say otherwise."""
    app = App()
    policy = Retry(max_attempts=7)

    @app.task(
        name="gpu.embed",
        queue="gpu",
        timeout=60,
        queue_timeout=5,
        retry=policy,
        priority="high",
        retention=None,
        failed_retention=3600,
        max_crashes=1,
        first_output_timeout=3,
        output_timeout=4,
        max_snoozes=0,
        resumable=True,
        cost=2.5,
        concurrency=4,
    )
    def embed(texts: list[str]) -> list[float]:
        return [0.0 for _ in texts]

    card = app.tasks["gpu.embed"].card
    assert (card.queue, card.run, card.priority) == ("gpu", "thread", Priority.high)
    assert (card.options.timeout_s, card.options.queue_timeout_s, card.options.retry) == (60.0, 5.0, policy)
    assert (card.options.retention_s, card.options.failed_retention_s) == (None, 3600.0)
    assert (card.options.first_output_timeout_s, card.options.output_timeout_s) == (3.0, 4.0)
    assert (card.options.max_snoozes, card.options.resumable) == (0, True)
    assert (card.options.max_crashes, card.options.cost, embed.concurrency) == (1, 2.5, 4)


def test_a_task_is_still_the_plain_function() -> None:
    """Calling it runs it: tests and other code need no engine."""
    app = App()

    @app.task
    def double(n: int) -> int:
        return 2 * n

    assert double(21) == 42


def test_context_and_resources_are_not_input() -> None:
    """What the worker gives is found by name or by annotation, wherever it stands among the parameters."""
    app = App()

    @app.resource
    def model() -> Model:
        return Model()

    @app.task
    async def by_name(ctx: Any, text: str, model: Model) -> None: ...

    @app.task
    async def by_annotation(text: str, *, job: Context = given, model: Model = given) -> None: ...

    @app.task
    async def by_an_unreadable_annotation(text: str, *, job: only_for_checkers.Context = given) -> None: ...

    for task in ("by_name", "by_annotation", "by_an_unreadable_annotation"):
        assert input_names(app, task) == ["text"]


def test_each_kind_of_function_runs_where_it_belongs() -> None:
    """`async def` on the loop, `def` on a thread; generators stream."""
    app = App()

    @app.task
    async def coroutine() -> int:
        return 1

    @app.task
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    @app.task
    def function() -> int:
        return 1

    @app.task(run="thread")
    def generator() -> Iterator[int]:
        yield 1

    kinds = {task.name: (task.card.run, task.card.streams) for task in app.tasks.values()}
    assert kinds == {
        "coroutine": ("loop", False),
        "async_generator": ("loop", True),
        "function": ("thread", False),
        "generator": ("thread", True),
    }


def test_types_of_the_declaring_function_are_found() -> None:
    """An application made inside a function may use the types defined there."""

    @dataclass
    class Point:
        x: int

    app = App()

    @app.task
    async def move(point: Point, to: list[Point]) -> Point:
        return point

    move.check('{"point":{"x":1},"to":[{"x":2}]}')
    assert move.decode_output('{"x":3}') == Point(3)


def test_a_wrapped_function_keeps_its_own_signature() -> None:
    """Other decorators that use functools.wraps are seen through."""
    app = App()

    def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return wrapper

    @app.task
    @logged
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert input_names(app, "add") == ["a", "b"]
    assert add(1) == 3


async def _positional_only(a: int, /) -> None: ...


async def _many(*texts: str) -> None: ...


async def _keywords(**options: str) -> None: ...


async def _unserialisable(model: Model) -> None: ...


async def _unserialisable_return() -> Model:
    return Model()


async def _unknown_type(amount: OnlyForCheckers) -> None: ...


async def _two_contexts(ctx: Context, other: Context) -> None: ...


async def _no_such_resource(llm: Model = given) -> None: ...


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (_positional_only, "'a: 'int'' is positional-only.*name its parameters"),
        (_many, "variadic positional.*name its parameters"),
        (_keywords, "variadic keyword.*name its parameters"),
        (_unserialisable, "'model' has the type .*Model.*cannot carry.*if 'model' is a resource, declare it"),
        (_unserialisable_return, "returns .*Model.*cannot carry"),
        (_unknown_type, "the type of 'amount' cannot be read.*define or import it above the task"),
        (_two_contexts, "two contexts, 'ctx' and 'other'"),
        (_no_such_resource, "'llm' is to be given, but no resource of that name is declared above"),
    ],
)
def test_an_impossible_task_is_refused_where_it_is_declared(fn: Callable[..., Any], message: str) -> None:
    """The error names the task and the parameter, and says what to do."""
    with pytest.raises(TypeError, match=f"(?s)task '{fn.__name__}'.*{message}"):
        App().task(fn)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 0}, "timeout must be above 0"),
        ({"queue_timeout": -1}, "queue_timeout must be above 0"),
        ({"first_output_timeout": 0}, "first_output_timeout must be above 0"),
        ({"output_timeout": 0}, "output_timeout must be above 0"),
        ({"max_snoozes": 1001}, "max_snoozes is 0 to 1000"),
        ({"retention": float("nan")}, "retention must be above 0"),
        ({"cost": float("inf")}, "cost must be above 0"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"max_crashes": 0}, "max_crashes must be at least 1"),
        ({"run": "fork"}, "'loop', 'thread' or 'process'"),
        ({"priority": "urgent"}, "priority is low, normal or high"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    """At declaration, naming the task and the setting."""

    async def work() -> None: ...

    with pytest.raises(ValueError, match=f"task 'work'.*{message}"):
        App().task(**settings)(work)


def test_an_unknown_setting_is_refused() -> None:
    """A misspelt setting is not silently dropped."""
    with pytest.raises(TypeError, match="no setting 'time_out'"):
        App().task(time_out=3)  # type: ignore[call-overload]


def test_a_function_cannot_run_where_its_kind_does_not_belong() -> None:
    """`run` may say what holds anyway; it does not change it."""
    with pytest.raises(TypeError, match="is a coroutine and cannot run on the thread: write it as a plain `def`"):

        @App().task(run="thread")
        async def on_a_thread() -> None: ...

    with pytest.raises(TypeError, match="is a function and cannot run on the loop: write it as `async def`"):

        @App().task(run="loop")
        def on_the_loop() -> None: ...


def test_names_are_taken_once() -> None:
    """Tasks and resources share one space of names, and a task's name must fit a key and a path."""
    app = App()

    @app.task
    async def work() -> None: ...

    with pytest.raises(ValueError, match="there is a task 'work' already"):
        app.task(name="work")(_two_contexts)
    with pytest.raises(ValueError, match="there is a task 'work' already"):
        app.resource(work.fn)
    with pytest.raises(InvalidRequest, match="is no task name"):
        app.task(name="a b")(_two_contexts)
    with pytest.raises(InvalidRequest, match="is no queue name"):

        @app.task(queue="a/b")
        async def other() -> None: ...


def test_a_resource_may_not_take_over_a_task_s_input() -> None:
    """What a task takes as input cannot become a resource behind its back."""
    app = App()

    @app.task
    async def search(index: str) -> None: ...

    with pytest.raises(ValueError, match="task 'search' takes 'index' as input already"):

        @app.resource
        def index() -> str:
            return "x"


def test_a_resource_takes_resources_only() -> None:
    """Nobody could fill any other parameter of it."""
    app = App()
    with pytest.raises(TypeError, match="resource 'pool' takes 'url', which is no resource declared above"):

        @app.resource
        def pool(url: str) -> str:
            return url

    @app.resource
    def cache(size: int = 3) -> int:
        return size

    assert list(app.resources) == ["cache"]
