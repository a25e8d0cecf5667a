"""A batch function's signature, read as that of one of its jobs: it takes lists, and a job submits one item of each."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ropeway.runtime.batching.settings import Batch, Signal
from ropeway.runtime.signature import EMPTY, Field, Signature, item_of

__all__ = ["Batching", "batching_of", "itemwise"]

_FORM = "`def {task}(texts: list[str]) -> list[int]`"
_LISTS = (list, Sequence, Collection, Iterable)
_BY_ORDER = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Batching(NamedTuple):
    """A task's batches, as its worker needs them: `key` and `cost` read a job's arguments; None: nothing to read."""

    batch: Batch
    key: Callable[[Mapping[str, Any]], Any] | None
    cost: Callable[[Mapping[str, Any]], float] | None


def itemwise(task: str, signature: Signature) -> Signature:
    """The signature of one job. Raises TypeError when the function cannot serve many at once."""
    if not signature.fields:
        raise TypeError(f"task '{task}' takes no input: a batch task takes a list for each job's, {_form(task)}")
    fields = tuple(_item_field(task, field) for field in signature.fields)
    return signature._replace(fields=fields, returns=_item_of_result(task, signature))


def batching_of(task: str, signature: Signature, batch: Batch) -> Batching:
    """How jobs of this task, of this signature item by item, are put together. Raises TypeError."""
    if not isinstance(batch, Batch):
        raise TypeError(f"task '{task}': batch is given as Batch(max_size=64, max_wait=0.005), not {batch!r}")
    names = [field.name for field in signature.fields]
    cost = None if batch.cost is None else _reader(task, "cost", batch.cost, names)
    if batch.key is None:
        return Batching(batch, None, cost)
    if not isinstance(batch.key, str):
        return Batching(batch, _reader(task, "key", batch.key, names), cost)
    name = batch.key
    if name not in names:
        raise TypeError(f"task '{task}': its batch's key '{name}' is no input of it: {', '.join(names)}")
    return Batching(batch, lambda arguments: arguments[name], cost)


def _item_field(task: str, field: Field) -> Field:
    if field.default is not EMPTY:
        raise TypeError(
            f"task '{task}': '{field.name}' has a default, which a list for many jobs cannot have: let each job submit "
            f"a struct or dataclass, `{field.name}: list[Request]`, and give that the default"
        )
    item = item_of(field.annotation)
    if item is EMPTY:
        raise TypeError(
            f"task '{task}' takes '{field.name}' as {field.annotation!r}: a batch task takes a list with one item for "
            f"each job, {_form(task)}; if '{field.name}' is a resource, declare it with @app.resource above the task"
        )
    return field._replace(annotation=item)


def _item_of_result(task: str, signature: Signature) -> Any:
    if signature.returns is Any:
        return Any
    item = item_of(signature.returns)
    if item is EMPTY:
        what, form = ("yields", "Step[str]") if signature.kind.streams else ("returns", "list[int]")
        raise TypeError(
            f"task '{task}' {what} {signature.returns!r}: a batch task {what} a list with one entry for each job, as "
            f"`{form}`"
        )
    return _without_signs(item)


def _without_signs(item: Any) -> Any:
    """The type of an output, without what may stand in its place."""
    if typing.get_origin(item) not in (typing.Union, types.UnionType):
        return item
    left = tuple(part for part in typing.get_args(item) if not _is_sign(part))
    return typing.Union[left] if left else Any  # noqa: UP007 - made at run time


def _is_sign(part: Any) -> bool:
    return isinstance(part, type) and (part is Signal or issubclass(part, BaseException))


def _reader(task: str, what: str, call: Callable[..., Any], names: Sequence[str]) -> Callable[[Mapping[str, Any]], Any]:
    """What reads a job's arguments by this function: by the names that it has, or all of them in order."""
    if not callable(call):
        raise TypeError(f"task '{task}': its batch's {what} is a function of a job's input, not {call!r}")
    try:
        wanted = [each for each in inspect.signature(call).parameters.values() if each.default is EMPTY]
    except (TypeError, ValueError):  # written in C, and says nothing of itself
        return lambda arguments: call(*(arguments[name] for name in names))
    if wanted and all(each.name in names and each.kind is not each.POSITIONAL_ONLY for each in wanted):
        taken = [each.name for each in wanted]
        return lambda arguments: call(**{name: arguments[name] for name in taken})
    if len(wanted) == len(names) and all(each.kind in _BY_ORDER for each in wanted):
        return lambda arguments: call(*(arguments[name] for name in names))
    raise TypeError(
        f"task '{task}': its batch's {what} takes {', '.join(each.name for each in wanted) or 'nothing'}: name some of "
        f"{', '.join(names)}"
    )


def _form(task: str) -> str:
    return _FORM.format(task=task)
