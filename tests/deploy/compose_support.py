"""deploy/compose.yaml as Compose would read it, and its services as processes of this machine."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

__all__ = ["DEPLOY", "ROOT", "Service", "interpolated", "read_compose"]

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")


class Service(msgspec.Struct, frozen=True):
    """One service, with its variables filled in."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    health: tuple[str, ...]
    raw: dict[str, Any]

    def settings(self) -> dict[str, str]:
        """What it is told in the environment for Ropeway."""
        return {name: text for name, text in self.environment.items() if name.startswith("ROPEWAY_")}

    def check(self, replaced: Mapping[str, str]) -> list[str]:
        """Its health check as a command here, with some texts replaced."""
        kind, *words = self.health
        words = [_replaced(word, replaced) for word in words]
        if kind == "CMD-SHELL":
            return ["sh", "-c", words[0]]
        return [sys.executable if word == "python" else word for word in words]

    def program(self, replaced: Mapping[str, str]) -> list[str]:
        """Its command as one here, with some texts replaced."""
        words = [_replaced(word, replaced) for word in self.command]
        return [sys.executable, "-m", "ropeway", *words[1:]] if words[0] == "ropeway" else words


def read_compose(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Service]]:
    """The whole file, and its services. Raises KeyError for a variable that must be set and is not."""
    text = interpolated((DEPLOY / "compose.yaml").read_text(), environ)
    whole: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return whole, {name: _service(name, raw) for name, raw in whole["services"].items()}


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """The text with `${NAME}`, `${NAME:-default}` and `${NAME:?why}` filled in, outside of comments."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environ.get(name):
            return environ[name]
        if kind == ":?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    lines = (line if line.lstrip().startswith("#") else _VARIABLE.sub(value, line) for line in text.splitlines())
    return "\n".join(lines) + "\n"


def _service(name: str, raw: dict[str, Any]) -> Service:
    command = raw["command"]
    words = shlex.split(command) if isinstance(command, str) else command
    environment = {key: str(text) for key, text in raw.get("environment", {}).items()}
    health = raw.get("healthcheck", {}).get("test", [])
    return Service(name, tuple(words), environment, tuple(health), raw)


def _replaced(text: str, replaced: Mapping[str, str]) -> str:
    for old, new in replaced.items():
        text = text.replace(old, new)
    return text
