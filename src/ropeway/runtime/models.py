"""Pydantic's part: the one module that imports it, and only an application that uses it gets here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic.json_schema import JsonSchemaMode

from ropeway.domain.errors import Fault
from ropeway.runtime.faults import ModelFaults, pointer

__all__ = ["ModelCodec", "dump", "schemas"]


class ModelCodec:
    """Reads values of a type that pydantic validates. Raises TypeError for a type that it cannot."""

    def __init__(self, annotation: Any) -> None:
        try:
            self.adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
        except pydantic.errors.PydanticUserError as error:
            raise TypeError(str(error).splitlines()[0]) from error

    def decode(self, raw: bytes | str) -> Any:
        """The value, validated as JSON. Raises ModelFaults."""
        try:
            return self.adapter.validate_json(raw)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise ModelFaults(tuple(_fault(one) for one in found)) from None


def schemas(
    codecs: Mapping[str, ModelCodec], mode: JsonSchemaMode, ref_template: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON Schema of each, by the given names, and their shared definitions."""
    wanted = [(name, mode, codec.adapter) for name, codec in codecs.items()]
    made, shared = pydantic.TypeAdapter.json_schemas(wanted, ref_template=ref_template)
    return {name: made[name, mode] for name in codecs}, dict(shared.get("$defs", {}))


def dump(value: Any) -> bytes | None:
    """A model as JSON; None for what is no pydantic model."""
    return value.model_dump_json().encode() if isinstance(value, pydantic.BaseModel) else None


def _fault(error: Any) -> Fault:
    steps = error["loc"]
    if error["type"] == "missing":
        return Fault(pointer(steps[:-1]), f"missing required field '{steps[-1]}'")
    return Fault(pointer(steps), str(error["msg"]))
