"""Values to JSON and back, by type: msgspec does it all, but for what pydantic has to validate.

Pydantic is never imported from here unless the application has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin

import msgspec

from ropeway.blobs.handle import File, Saved, restored_file
from ropeway.client.reference import Output

__all__ = [
    "Codec",
    "Mode",
    "OutputInvalid",
    "PlainCodec",
    "codec_for",
    "encode",
    "encode_output",
    "restore",
    "schema_of",
]

Mode = Literal["validation", "serialization"]

_REF = "#/$defs/{name}"
_MODEL_REF = "#/$defs/{model}"
_VALIDATED_BY_PYDANTIC = frozenset({"pydantic", "annotated_types"})


class OutputInvalid(Exception):
    """The task made something that JSON cannot carry."""


class Codec(Protocol):
    """Reads the JSON of one type."""

    def decode(self, raw: bytes | str) -> Any: ...


class PlainCodec:
    """A type that msgspec reads. Raises TypeError for one that it cannot."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = Any if annotation is object else annotation
        msgspec.json.schema(self.annotation, schema_hook=_schema_hook)  # refuses what a decoder would meet too late
        self._decoder = msgspec.json.Decoder(self.annotation, dec_hook=restore)

    def decode(self, raw: bytes | str) -> Any:
        return self._decoder.decode(raw)


def codec_for(annotation: Any) -> Codec:
    """How to read this type. Raises TypeError when JSON cannot carry it."""
    if not _wants_pydantic(annotation):
        try:
            return PlainCodec(annotation)
        except TypeError:
            if "pydantic" not in sys.modules:
                raise
    from ropeway.runtime.models import ModelCodec

    return ModelCodec(annotation)


def encode(value: Any) -> str:
    """`value` as JSON text.

    Raises TypeError, ValueError or RecursionError for what JSON cannot carry.
    """
    return _encode(value).decode()


def encode_output(value: Any) -> str:
    """`encode`, for what a task made. Raises OutputInvalid."""
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputInvalid(f"the output is no JSON value: {error}") from error


def schema_of(codecs: Mapping[str, Codec], mode: Mode) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The JSON Schema (2020-12) of each type by its given name, and the definitions that they refer to in `$defs`."""
    plain = {name: codec for name, codec in codecs.items() if isinstance(codec, PlainCodec)}
    made, definitions = msgspec.json.schema_components(
        [codec.annotation for codec in plain.values()], schema_hook=_schema_hook, ref_template=_REF
    )
    found = dict(zip(plain, made, strict=True))
    others: dict[str, Any] = {name: codec for name, codec in codecs.items() if name not in plain}
    if others:
        from ropeway.runtime import models

        schemas, theirs = models.schemas(others, mode, _MODEL_REF)
        if theirs.keys() & definitions.keys():  # one name for two types: pydantic's get a mark
            schemas, theirs = models.schemas(others, mode, _MODEL_REF + ".model")
            theirs = {f"{name}.model": schema for name, schema in theirs.items()}
        found.update(schemas)
        definitions = {**definitions, **theirs}
    return found, definitions


def restore(kind: type, value: Any) -> Any:
    """A type that msgspec leaves to us: paths are strings in JSON."""
    if kind is File:
        return restored_file(value)
    if isinstance(kind, type) and issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
        return kind(value)
    raise TypeError(f"JSON cannot carry {kind!r}")


def _schema_hook(kind: type) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return {"type": "string", "format": "path"}
    if kind is File:
        return {"type": "object", "properties": {"$file": {"type": "string"}}, "required": ["$file"]}
    raise NotImplementedError


def _simplify(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (File, Output)):
        return value.as_json()
    if isinstance(value, Saved):
        return value.file.as_json()
    if "pydantic" in sys.modules:
        from ropeway.runtime import models

        dumped = models.dump(value)
        if dumped is not None:
            return msgspec.Raw(dumped)
    raise TypeError(f"JSON cannot carry {type(value).__qualname__}")


_encode = msgspec.json.Encoder(enc_hook=_simplify).encode


def _wants_pydantic(annotation: Any) -> bool:
    """Whether a pydantic model, or a constraint that only pydantic enforces, is in this type."""
    if "pydantic" not in sys.modules:
        return False
    if hasattr(annotation, "__pydantic_validator__"):
        return True
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        if any(type(mark).__module__.partition(".")[0] in _VALIDATED_BY_PYDANTIC for mark in marks):
            return True
        return _wants_pydantic(inner)
    return any(_wants_pydantic(part) for part in get_args(annotation))
