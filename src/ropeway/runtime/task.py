"""A task: a function, what it takes and gives, and how its jobs are run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec

from ropeway.domain.cache import Cache
from ropeway.domain.job import JobOptions
from ropeway.domain.rank import Priority
from ropeway.domain.worker import ModelCard, TaskCard
from ropeway.runtime.batching.shape import Batching
from ropeway.runtime.coding import Codec, codec_for, schema_of
from ropeway.runtime.payload import Input
from ropeway.runtime.process.settings import PLAIN, Isolation
from ropeway.runtime.signature import Signature

__all__ = ["Task"]

P = ParamSpec("P")
C = TypeVar("C", covariant=True)
R = TypeVar("R", covariant=True)


class Task(Generic[P, C, R]):
    """A function that can be submitted. Called, it is the plain function, for tests and for other code.

    `C` is what a plain call gives (a coroutine, an iterator), `R` what the job comes to. Made by `@app.task`. Where
    `batching` is not None, the function takes lists, and everything else here is of one job: an item of each.
    """

    def __init__(
        self,
        fn: Callable[P, C],
        signature: Signature,
        *,
        name: str,
        queue: str,
        priority: Priority,
        options: JobOptions,
        concurrency: int | None,
        models: tuple[ModelCard, ...] = (),
        cache: Cache | None = None,
        batching: Batching | None = None,
        run: str | None = None,
        isolation: Isolation = PLAIN,
        needs: tuple[str, ...] = (),
    ) -> None:
        self.fn = fn
        self.name = name
        self.concurrency = concurrency
        self.batching = batching
        self.isolation = isolation
        self.in_process = run == "process"
        self.on_loop = signature.kind.on_loop
        self.streams = signature.kind.streams
        self.context_name = signature.context
        self.resource_names = signature.resources
        self.input = Input(name, signature.fields)
        self._output = _output_codec(name, signature)
        self._text = self.streams and signature.returns is str
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", name)
        self.__wrapped__ = fn
        self.card = TaskCard(
            name=name,
            queue=queue,
            input_schema=self.input.schema,
            output_schema=_output_schema(self._output),
            streams=self.streams,
            run=run or ("loop" if self.on_loop else "thread"),
            doc=inspect.cleandoc(fn.__doc__ or ""),
            options=options,
            priority=priority,
            models=models,
            cache=cache,
            needs=needs,
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.fn(*args, **kwargs)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The input of this call as JSON, validated; what the worker gives is left out of the call.

        Raises InputInvalid, with a JSON pointer for each fault.
        """
        return self.input.bind(args, kwargs)

    def check(self, raw: str | bytes) -> None:
        """Nothing, when this JSON is an input of the task. Raises InputInvalid, with a JSON pointer for each fault."""
        self.input.check(raw)

    def decode_output(self, output: str) -> R:
        """What a job of this task came to, from its JSON. Raises msgspec.ValidationError when it is something else."""
        if not self.streams:
            return cast(R, self._output.decode(output))
        if self._text:
            return cast(R, msgspec.json.decode(output, type=str))
        return cast(R, self._decode_items(output))

    @property
    def empty_output(self) -> str:
        """The output of a generator that yielded nothing."""
        return '""' if self._text else "[]"

    def _decode_items(self, output: str) -> Any:
        items = msgspec.json.decode(output, type=list[msgspec.Raw] | str)
        return items if isinstance(items, str) else [self._output.decode(bytes(item)) for item in items]

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


def _output_codec(task: str, signature: Signature) -> Codec:
    try:
        return codec_for(signature.returns)
    except TypeError as error:
        what = "yields" if signature.kind.streams else "returns"
        raise TypeError(
            f"task '{task}' {what} {signature.returns!r}, which JSON cannot carry: return plain types, dataclasses, "
            f"msgspec structs or pydantic models"
        ) from error


def _output_schema(codec: Codec) -> str:
    schemas, definitions = schema_of({"output": codec}, "serialization")
    schema: Mapping[str, Any] = {**schemas["output"], **({"$defs": definitions} if definitions else {})}
    return msgspec.json.encode(schema).decode()
