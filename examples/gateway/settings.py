"""What the example can be told. It travels in the environment, so that every process of it reads the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["GatewaySettings", "settings"]

_PREFIX = "GATEWAY_"


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway's own settings.

    Attributes:
        upstream: base URL of the provider; None is a simulated one.
        key: where its key is, `env:NAME` or `file:PATH`; empty for none.
        models: ids that are served, the first one by default; with commas.
        code: `async` asks the provider from the event loop, `blocking` from a thread for each request; `local` runs a
            small model in the worker itself and asks nobody.
        in_flight: requests that one worker has at the provider at once; what comes above it waits in line.
        max_waiting: requests in line; the next is answered 503.
        on_disconnect: what becomes of a request whose client leaves.
    """

    upstream: str | None = None
    key: str = ""
    models: tuple[str, ...] = ("simulated",)
    code: Literal["async", "blocking", "local"] = "async"
    in_flight: int = 400
    max_waiting: int = 1_000
    on_disconnect: Literal["cancel", "continue"] = "cancel"

    def environment(self) -> dict[str, str]:
        """These settings as variables; `settings` reads them back."""
        found = {**msgspec.structs.asdict(self), "models": ",".join(self.models)}
        return {_PREFIX + name.upper(): str(value) for name, value in found.items() if value is not None}


def settings(environ: Mapping[str, str] = os.environ) -> GatewaySettings:
    """The settings of this process. Raises msgspec.ValidationError for one that is unknown or out of type."""
    found: dict[str, object] = {
        name.removeprefix(_PREFIX).lower(): text for name, text in environ.items() if name.startswith(_PREFIX)
    }
    if "models" in found:
        found["models"] = tuple(model.strip() for model in str(found["models"]).split(",") if model.strip())
    return msgspec.convert(found, GatewaySettings, strict=False)
