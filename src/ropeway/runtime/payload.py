"""The input of a task: one JSON object, a field for each parameter that the caller fills."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from ropeway.blobs.handle import File
from ropeway.client.checking import SchemaCheck
from ropeway.domain.errors import Fault, InvalidRequest
from ropeway.domain.file import referred_in
from ropeway.domain.flow import Place, places_in
from ropeway.domain.worker import TaskCard
from ropeway.runtime.coding import Codec, PlainCodec, codec_for, encode, restore, schema_of
from ropeway.runtime.faults import ModelFaults, invalid, pointer, reading_faults
from ropeway.runtime.signature import EMPTY, Field

__all__ = ["Input"]

_SCALARS = (str, int, float, bool, bytes, type(None))
_REFUSALS = (msgspec.MsgspecError, ModelFaults, ValueError, RecursionError)


class Input:
    """Reads and writes the inputs of one task. `schema` is JSON Schema (2020-12) as JSON text."""

    def __init__(self, task: str, fields: Sequence[Field]) -> None:
        self._task = task
        self.names = tuple(field.name for field in fields)
        self._positional = tuple(field.name for field in fields if field.positional)
        codecs = {field.name: _codec(task, field) for field in fields}
        self._models = {name: codec for name, codec in codecs.items() if not isinstance(codec, PlainCodec)}
        struct = msgspec.defstruct(
            "Input",
            [(field.name, *_slot(field, field.name in self._models)) for field in fields],
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self._fields = {field.name: field for field in fields}
        self._codecs = codecs
        self._decode = msgspec.json.Decoder(struct, dec_hook=restore).decode
        self.schema = _schema(fields, codecs)

    def decode(self, raw: str | bytes) -> dict[str, Any]:
        """The arguments, by name. Raises InputInvalid."""
        arguments = msgspec.structs.asdict(self._read(raw))
        if self._models:
            self._read_models(arguments)
        return arguments

    def decode_with(self, raw: str | bytes, brought: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, where some are brought from files: those members are not looked at. Raises InputInvalid."""
        return self._decode_apart(raw, brought.keys()) | dict(brought)

    def check(self, raw: str | bytes) -> None:
        """Nothing, if this is an input. Raises InputInvalid.

        A file may stand for any of its members, and the output of a job for anything in it.
        """
        apart = self.files_apart(raw)
        places = self._places_in(raw)
        if places:
            self._check_around(raw, apart.keys(), places)
        elif apart:
            self._decode_apart(raw, apart.keys())
        else:
            self.decode(raw)

    def files_apart(self, raw: str | bytes) -> dict[str, str]:
        """The files that stand for members of another type than a file's, by the names of these."""
        found = referred_in(raw)
        return {name: id_ for name, id_ in found.items() if name in self._fields and self.type_of(name) is not File}

    def type_of(self, name: str) -> Any:
        """The annotation of a parameter."""
        return self._fields[name].annotation

    def read(self, name: str, content: bytes) -> Any:
        """What a file's content is to a parameter: text, bytes, or what its JSON says. Raises InputInvalid."""
        kind = self.type_of(name)
        if kind is bytes:
            return content
        try:
            return content.decode() if kind is str else self._codecs[name].decode(content)
        except _REFUSALS as error:
            raise invalid(self._task, _placed(name, error)) from None

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The JSON of a call with these arguments. Raises InputInvalid."""
        arguments = dict(zip(self._positional, args, strict=False))
        if (kwargs or len(args) > len(arguments)) and (faults := self._misfits(args, kwargs, arguments)):
            raise invalid(self._task, faults)
        arguments.update(kwargs)
        try:
            raw = encode(arguments)
        except (TypeError, ValueError, RecursionError) as error:
            raise invalid(self._task, self._unwritable(arguments, error)) from None
        if '"$file"' in raw or '"$output"' in raw:
            self.check(raw)
        else:
            self.decode(raw) if self._models else self._read(raw)
        return raw

    def _places_in(self, raw: str | bytes) -> list[Place]:
        try:
            return places_in(raw)
        except RecursionError as error:
            raise invalid(self._task, reading_faults(error)) from None

    def _check_around(self, raw: str | bytes, files: Collection[str], places: Sequence[Place]) -> None:
        """Check what is known of an input in which outputs stand.

        A member's own type reads all of it or nothing: one with an output inside is checked by the schema, as it is by
        gateways.
        """
        if () in places:
            return
        within = {str(place[0]) for place in places}
        self._decode_apart(raw, {*files, *within})
        inside = tuple({pointer([str(place[0])]) + "/" for place in places if len(place) > 1})
        if inside and self._schema_check is not None:
            found = self._schema_check.faults(raw.encode() if isinstance(raw, str) else raw)
            if faults := [fault for fault in found if f"{fault.pointer}/".startswith(inside)]:
                raise invalid(self._task, faults)

    @functools.cached_property
    def _schema_check(self) -> SchemaCheck | None:
        """None for a schema that does not compile, as of a pattern that Python alone understands: the types decide."""
        try:
            return SchemaCheck(TaskCard(self._task, input_schema=self.schema))
        except InvalidRequest:
            return None

    def _decode_apart(self, raw: str | bytes, apart: Collection[str]) -> dict[str, Any]:
        """All arguments but those, each by itself."""
        try:
            members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except _REFUSALS as error:
            raise invalid(self._task, reading_faults(error)) from None
        faults = [Fault(pointer([name]), "unknown field") for name in members if name not in self._fields]
        arguments: dict[str, Any] = {}
        for name, field in self._fields.items():
            if name in apart:
                continue
            if name not in members:
                if field.default is EMPTY:
                    faults.append(Fault("", f"missing required field '{name}'"))
                continue
            try:
                arguments[name] = self._codecs[name].decode(bytes(members[name]))
            except _REFUSALS as error:
                faults += _placed(name, error)
        if faults:
            raise invalid(self._task, faults)
        return arguments

    def _read(self, raw: str | bytes) -> msgspec.Struct:
        try:
            return self._decode(raw)
        except _REFUSALS as error:
            raise invalid(self._task, reading_faults(error)) from None

    def _read_models(self, arguments: dict[str, Any]) -> None:
        faults: list[Fault] = []
        for name, codec in self._models.items():
            raw = arguments[name]
            if not isinstance(raw, msgspec.Raw):  # left out: the function's own default holds
                del arguments[name]
                continue
            try:
                arguments[name] = codec.decode(bytes(raw))
            except ModelFaults as error:
                faults += [Fault(pointer([name]) + fault.pointer, fault.detail) for fault in error.faults]
        if faults:
            raise invalid(self._task, faults)

    def _misfits(self, args: Sequence[Any], kwargs: Mapping[str, Any], bound: Mapping[str, Any]) -> list[Fault]:
        faults = []
        if len(args) > len(self._positional):
            faults.append(Fault("", f"takes at most {len(self._positional)} positional arguments, got {len(args)}"))
        faults += [Fault(pointer([name]), "given twice") for name in kwargs if name in bound]
        faults += [Fault(pointer([name]), "unknown field") for name in kwargs if name not in self.names]
        return faults

    def _unwritable(self, arguments: Mapping[str, Any], error: Exception) -> list[Fault]:
        """The arguments that JSON cannot carry, found one by one."""
        faults = []
        for name, value in arguments.items():
            try:
                encode(value)
            except (TypeError, ValueError, RecursionError) as own:
                faults.append(Fault(pointer([name]), str(own).encode("utf-8", "replace").decode()))
        return faults or [Fault("", str(error))]


def _placed(name: str, error: Exception) -> list[Fault]:
    """What is wrong with one member, told from the whole input."""
    return [Fault(pointer([name]) + fault.pointer, fault.detail) for fault in reading_faults(error)]


def _codec(task: str, field: Field) -> Codec:
    try:
        return codec_for(field.annotation)
    except TypeError as error:
        raise TypeError(
            f"task '{task}': '{field.name}' has the type {field.annotation!r}, which JSON cannot carry: use plain "
            f"types, dataclasses, msgspec structs or pydantic models; if '{field.name}' is a resource, declare it "
            f"with @app.resource above the task"
        ) from error


def _slot(field: Field, is_model: bool) -> tuple[Any, ...]:
    """The type of a field in the struct, and its default. A model stays raw here, None where it is left out."""
    if is_model:
        return (msgspec.Raw,) if field.default is EMPTY else (msgspec.Raw, None)
    annotation = Any if field.annotation is object else field.annotation
    if field.default is EMPTY:
        return (annotation,)
    if isinstance(field.default, _SCALARS):
        return (annotation, field.default)
    return (annotation, msgspec.field(default_factory=lambda: field.default))


def _schema(fields: Sequence[Field], codecs: Mapping[str, Codec]) -> str:
    properties, definitions = schema_of(codecs, "validation")
    for field in fields:
        if field.default is not EMPTY:
            properties[field.name] = {**properties[field.name], **_default(field.default)}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: properties[field.name] for field in fields},
        "required": [field.name for field in fields if field.default is EMPTY],
        "additionalProperties": False,
    }
    if definitions:
        schema["$defs"] = definitions
    return encode(schema)


def _default(value: Any) -> dict[str, Any]:
    try:
        encode(value)
    except (TypeError, ValueError):
        return {}
    return {"default": value}
