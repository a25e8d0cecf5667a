"""What a caller gives, as it goes over the wire: values as JSON, and keys that make a call safe to repeat."""

from __future__ import annotations

from typing import Any

import msgspec

from ropeway.blobs.handle import File
from ropeway.client.reference import Output
from ropeway.domain.errors import InputInvalid, InvalidRequest

__all__ = ["checked_key", "encode_input"]

KEY_LIMIT = 255


def encode_input(value: Any) -> bytes:
    """JSON of plain values, dataclasses, msgspec and pydantic models. Raises InputInvalid for what JSON cannot say."""
    try:
        return msgspec.json.encode(value, enc_hook=_encode_model)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InputInvalid(f"the input cannot be written as JSON: {error}") from error


def _encode_model(value: Any) -> Any:
    if isinstance(value, (File, Output)):
        return value.as_json()
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return dump(mode="json")


def checked_key(key: str, param: str = "idempotency_key") -> str:
    """A key that may stand in a header too, so that it means the same by every way."""
    if not (1 <= len(key) <= KEY_LIMIT and key.isascii() and key.isprintable() and key == key.strip()):
        raise InvalidRequest(f"an idempotency key has 1 to {KEY_LIMIT} visible ASCII characters", param=param)
    return key
