"""What the example can be told. It travels in the environment, so that every process of it reads the same."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

__all__ = ["ECHO", "QUEUE", "TASK", "ChatSettings", "settings"]

TASK = QUEUE = "chat"
ECHO = "echo"

_PREFIX = "CHAT_"


class ChatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chat's own settings.

    Attributes:
        model: `echo`, which is no model; else the id of one.
        upstream: the base URL of an OpenAI-compatible API that serves it; '' runs it in the worker.
        key: where that API's key is: `env:NAME` or `file:PATH`.
        word_s: seconds between two words of the echo.
        max_queued: questions that may wait; the next is answered that everybody is busy.
    """

    model: str = ECHO
    upstream: str = ""
    key: str = ""
    word_s: float = 0.06
    max_queued: int = 1_000

    def environment(self) -> dict[str, str]:
        """These settings as variables; `settings` reads them back."""
        return {_PREFIX + name.upper(): str(value) for name, value in msgspec.structs.asdict(self).items()}


def settings(environ: Mapping[str, str] = os.environ) -> ChatSettings:
    """The settings of this process. Raises msgspec.ValidationError for one that is unknown or out of type."""
    found = {name.removeprefix(_PREFIX).lower(): text for name, text in environ.items() if name.startswith(_PREFIX)}
    return msgspec.convert(found, ChatSettings, strict=False)
