"""What `--input` names: JSON text, a file of it, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = ["input_text"]


def input_text(told: str) -> bytes:
    """The input, known to be JSON before anything is connected. Raises InvalidRequest."""
    if told == "-":
        text = sys.stdin.buffer.read()
    elif told.startswith("@"):
        try:
            text = Path(told[1:]).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"--input {told}: {error.strerror}") from error
    else:
        text = told.encode()
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"--input is not JSON: {error}; strings need double quotes") from error
    return text
