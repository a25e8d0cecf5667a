"""A task's signature, read once when it is declared: what is input, what the worker gives, what comes out."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ropeway.runtime.context import Context

__all__ = ["EMPTY", "Field", "Kind", "Signature", "given", "item_of", "read_signature", "resource_names"]

EMPTY: Final = inspect.Parameter.empty

_STREAMS = (AsyncIterable, AsyncIterator, Iterable, Iterator)
_LISTS = (list, Sequence, Collection, Iterable)
_CONTEXT_NAME = "ctx"
_CONTEXTS_NAME = "ctxs"
_UNREADABLE = (NameError, AttributeError, TypeError, SyntaxError)
_BY_NAME = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})


class _Given:
    def __repr__(self) -> str:
        return "given"


given: Any = _Given()
"""The default of a parameter that the worker gives: `ctx: Context = given`, `llm: LLM = given`.

At run time it changes nothing. It tells type checkers that whoever submits the task leaves the parameter out.
"""


class Kind(StrEnum):
    """What kind of function a task is; it decides where it runs."""

    coroutine = "coroutine"
    async_generator = "async generator"
    function = "function"
    generator = "generator"

    @property
    def on_loop(self) -> bool:
        return self in (Kind.coroutine, Kind.async_generator)

    @property
    def streams(self) -> bool:
        return self in (Kind.async_generator, Kind.generator)

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Kind:
        if inspect.isasyncgenfunction(fn):
            return cls.async_generator
        if inspect.iscoroutinefunction(fn):
            return cls.coroutine
        return cls.generator if inspect.isgeneratorfunction(fn) else cls.function


class Field(NamedTuple):
    """A parameter that is part of the input. `default` is EMPTY where there is none."""

    name: str
    annotation: Any
    default: Any
    positional: bool


class Signature(NamedTuple):
    """What a task takes and gives.

    `context` is the name of the parameter for the `Context`, `resources` are those for resources, and `returns` is
    what the function returns, or one item of what it yields.
    """

    kind: Kind
    fields: tuple[Field, ...]
    context: str | None
    resources: tuple[str, ...]
    returns: Any


def read_signature(
    task: str, fn: Callable[..., Any], resources: Collection[str], names: Mapping[str, Any], *, batched: bool = False
) -> Signature:
    """The signature of a task function.

    Args:
        resources: the names of the resources declared so far.
        names: what annotations may refer to beside the function's module: the declaring function's own names.
        batched: it serves many jobs at once: `ctxs: list[Context]` is its parameter for their contexts.

    Raises:
        TypeError: the function cannot be a task; the message says why and what to do.
    """
    kind = Kind.of(fn)
    fields: list[Field] = []
    context: str | None = None
    taken: list[str] = []
    for parameter in inspect.signature(fn).parameters.values():
        _check_kind(task, parameter)
        if parameter.name in resources:
            taken.append(parameter.name)
        elif _is_context(fn, parameter, names, batched):
            _check_context(task, parameter, batched)
            if context is not None:
                raise TypeError(f"task '{task}' takes two contexts, '{context}' and '{parameter.name}': one is enough")
            context = parameter.name
        else:
            fields.append(_field(task, fn, parameter, names))
    return Signature(kind, tuple(fields), context, tuple(taken), _returns(task, fn, kind, names))


def resource_names(resource: str, fn: Callable[..., Any], resources: Collection[str]) -> tuple[str, ...]:
    """The resources that a resource takes. Raises TypeError when it takes anything else without a default."""
    taken = []
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.name in resources and parameter.kind in _BY_NAME:
            taken.append(parameter.name)
        elif parameter.default in (EMPTY, given) and parameter.kind in (*_BY_NAME, parameter.POSITIONAL_ONLY):
            raise TypeError(
                f"resource '{resource}' takes '{parameter.name}', which is no resource declared above it: "
                f"declare that one first, or give the parameter a default"
            )
    return tuple(taken)


def _check_kind(task: str, parameter: inspect.Parameter) -> None:
    if parameter.kind not in _BY_NAME:
        raise TypeError(
            f"task '{task}': parameter '{parameter}' is {parameter.kind.description}, and a task's input is passed "
            f"by name: name its parameters"
        )


def item_of(annotation: Any) -> Any:
    """The T of a `list[T]`, or of what else a list is; EMPTY for anything that is none."""
    if annotation in (Any, *_LISTS):
        return Any
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) in _LISTS else EMPTY


def _is_context(fn: Callable[..., Any], parameter: inspect.Parameter, names: Mapping[str, Any], batched: bool) -> bool:
    if parameter.name == _CONTEXT_NAME or (batched and parameter.name == _CONTEXTS_NAME):
        return True
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            annotation = _resolve(fn, annotation, names)
        except _UNREADABLE:  # it may be imported for type checkers only
            inner = annotation.removesuffix("]").rpartition("[")[2] if batched else annotation
            return str(inner).rpartition(".")[2] == Context.__name__
    if batched and item_of(annotation) not in (EMPTY, Any):
        annotation = item_of(annotation)
    return isinstance(annotation, type) and issubclass(annotation, Context)


def _check_context(task: str, parameter: inspect.Parameter, batched: bool) -> None:
    """A batch task is given a list of contexts, and says so."""
    said = str(parameter.annotation)
    if batched and (parameter.name == _CONTEXT_NAME or (parameter.annotation is not EMPTY and "[" not in said)):
        raise TypeError(f"task '{task}' takes one context, '{parameter}', for many jobs: take `ctxs: list[Context]`")


def _field(task: str, fn: Callable[..., Any], parameter: inspect.Parameter, names: Mapping[str, Any]) -> Field:
    if parameter.default is given:
        raise TypeError(
            f"task '{task}': '{parameter.name}' is to be given, but no resource of that name is declared above the task"
        )
    annotation = Any if parameter.annotation is EMPTY else parameter.annotation
    try:
        resolved = _resolve(fn, annotation, names)
    except _UNREADABLE as error:
        raise TypeError(
            f"task '{task}': the type of '{parameter.name}' cannot be read ({error}): define or import it above the "
            f"task; if '{parameter.name}' is a resource, declare it with @app.resource above the task"
        ) from error
    return Field(parameter.name, resolved, parameter.default, parameter.kind is parameter.POSITIONAL_OR_KEYWORD)


def _returns(task: str, fn: Callable[..., Any], kind: Kind, names: Mapping[str, Any]) -> Any:
    annotation = inspect.signature(fn).return_annotation
    if annotation is EMPTY:
        return Any
    try:
        resolved = _resolve(fn, annotation, names)
    except _UNREADABLE as error:
        raise TypeError(
            f"task '{task}': its return type cannot be read ({error}): define or import it above"
        ) from error
    if not kind.streams:
        return resolved
    origin = typing.get_origin(resolved)
    if isinstance(origin, type) and issubclass(origin, _STREAMS):
        return typing.get_args(resolved)[0]
    return Any


def _resolve(fn: Callable[..., Any], annotation: Any, names: Mapping[str, Any]) -> Any:
    """The annotation with its strings read. One at a time, so that what we do not need may stay unreadable."""
    holder = type("Annotated", (), {"__annotations__": {"it": annotation}})
    scope = getattr(inspect.unwrap(fn), "__globals__", {})
    return typing.get_type_hints(holder, globalns=scope, localns=names, include_extras=True)["it"]
