"""A provider's key: where it is read from, and how it is kept out of everything else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ropeway.domain.errors import InvalidRequest

__all__ = ["MASK", "KeySource", "ModelUnavailable", "Secret"]

MASK = "***"
KEY_LIMIT = 4_096  # characters: what is longer is another file by mistake


class ModelUnavailable(RuntimeError):
    """A model cannot be served here: the message names what is missing and the command that brings it."""


class Secret:
    """A key that is not shown: not by repr, str, a format, nor in a traceback's locals. `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def hidden_in(self, text: str) -> str:
        """The text without the key, should somebody have put it there."""
        return text.replace(self._text, MASK) if self._text else text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied to other processes: each reads it for itself")


NO_KEY = Secret("")


class KeySource:
    """`env:NAME` or `file:/path`: read when a worker opens the pool, so that no code or settings file holds a key."""

    def __init__(self, source: str | None) -> None:
        """Raises InvalidRequest for anything else; what was given is not repeated, since it may be a key."""
        self._kind, _, self._name = (source or "none:none").partition(":")
        if self._kind not in ("env", "file", "none") or not self._name:
            raise InvalidRequest(
                "a key is named by where it is: key='env:OPENAI_API_KEY' or key='file:/run/secrets/openai', "
                "never written into code",
                param="key",
            )

    def __bool__(self) -> bool:
        return self._kind != "none"

    def __repr__(self) -> str:
        return f"KeySource({self._kind}:{self._name})"

    def read(self, environ: Mapping[str, str] = os.environ) -> Secret:
        """The key. Raises ModelUnavailable when it is not there, or is nothing that a header can carry."""
        if self._kind == "none":
            return NO_KEY
        text = (environ.get(self._name) or "") if self._kind == "env" else self._file_text()
        text = text.strip()
        if not text:
            where = f"environment variable {self._name}" if self._kind == "env" else f"file {self._name}"
            remedy = f"export {self._name}=…" if self._kind == "env" else "write the key into it"
            raise ModelUnavailable(f"there is no key in the {where}: {remedy}, and start the worker again")
        if len(text) > KEY_LIMIT or not text.isascii() or not text.isprintable() or " " in text:
            raise ModelUnavailable(f"what {self!r} names is no key: it has spaces, lines or signs that none has")
        return Secret(text)

    def _file_text(self) -> str:
        try:
            with Path(self._name).open(encoding="utf-8") as file:
                return file.read(KEY_LIMIT * 2)
        except (OSError, UnicodeDecodeError) as error:
            raise ModelUnavailable(f"the key's file {self._name} cannot be read: {type(error).__name__}") from None
