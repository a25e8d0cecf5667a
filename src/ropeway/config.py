"""Every setting, as one frozen tree: a file, above it the environment, above that the flags of a command.

    # ropeway.toml                            # the same in the environment
    engine = "sqlite:/var/lib/ropeway.db"     ROPEWAY_ENGINE
    [server]
    port = 8080                               ROPEWAY_SERVER_PORT
    [worker]
    queues = ["chat", "gpu"]                  ROPEWAY_WORKER_QUEUES=chat,gpu

A part below the command line never takes the whole tree, only what it uses.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ropeway.domain.errors import InvalidRequest

__all__ = [
    "CONFIG_FILE",
    "DEFAULT_ENGINE",
    "ServerSettings",
    "Settings",
    "WebhookSettings",
    "WorkerSettings",
    "load_settings",
]

CONFIG_FILE = "ropeway.toml"
DEFAULT_ENGINE = "sqlite:ropeway.db"
PREFIX = "ROPEWAY_"


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens, and to whom. `port` 0 takes a free one.

    `insecure` allows an address that others can reach while there is no key that they are asked for. `origins`: those
    whose pages may call, as `https://app.example`, besides its own. `max_file_bytes`: of one upload;
    `max_tenant_file_bytes`: of all uploads that a tenant keeps.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    insecure: bool = False
    origins: tuple[str, ...] = ()
    max_file_bytes: int = 512 << 20
    max_tenant_file_bytes: int | None = None


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How work is done.

    `processes` of workers, each with at most `concurrency` async jobs at once and `threads` blocking ones. `queues` in
    the order in which they are served; empty: those of the application's tasks. `grace_s`: for running jobs to finish
    at a stop, before they are given back. `children`: processes of each isolated task in each worker; None: as many as
    there are cores. `devices`: what tasks with `device="gpu"` run on, dealt out among the workers: `auto`, what is
    found here, or `none`. `labels`: what else the workers are, as `key=value`.
    """

    processes: int = 1
    concurrency: int = 1000
    threads: int = 256
    queues: tuple[str, ...] = ()
    grace_s: float = 30.0
    children: int | None = None
    devices: tuple[str, ...] = ("auto",)
    labels: tuple[str, ...] = ()


class WebhookSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How ends of jobs are told to webhooks.

    `deliver`: workers serve the queue of deliveries too. `allow`: hosts, addresses and networks beside the public
    network that may be told, each with `:port` if only that one; a host that is named may be told over plain http.
    """

    deliver: bool = True
    allow: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. `url` is a gateway that client commands talk to instead of the engine.

    `blobs` is where files are kept, `file:PATH` or `s3://BUCKET/PREFIX`; None: beside the file of a SQLite engine.
    """

    engine: str = DEFAULT_ENGINE
    blobs: str | None = None
    url: str | None = None
    server: ServerSettings = ServerSettings()
    worker: WorkerSettings = WorkerSettings()
    webhooks: WebhookSettings = WebhookSettings()


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": ServerSettings,
    "worker": WorkerSettings,
    "webhooks": WebhookSettings,
}


def load_settings(
    flags: Mapping[str, Any], *, environ: Mapping[str, str] = os.environ, path: Path | None = None
) -> Settings:
    """The settings of this process.

    Args:
        flags: what the command was told, in the tree's own shape; None stands for not told.
        path: the file; by default `ropeway.toml` here, if there is one, or what ROPEWAY_CONFIG names.

    Raises InvalidRequest for a file that is missing or is not TOML, and for a setting that is unknown or out of type,
    by its name and where it was found.
    """
    settings: dict[str, Any] = {}
    for where, layer in (
        _file_layer(path, environ),
        ("the environment", _environment_layer(environ)),
        ("the command line", _told(flags)),
    ):
        _check(where, layer)
        settings = _merged(settings, layer)
    return _converted(settings)


def _file_layer(path: Path | None, environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    named = path or (Path(environ["ROPEWAY_CONFIG"]) if environ.get("ROPEWAY_CONFIG") else None)
    file = named or Path(CONFIG_FILE)
    try:
        return str(file), tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return CONFIG_FILE, {}
        raise InvalidRequest(f"there is no settings file {named}") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the settings file {file} cannot be read: {error}") from error


def _environment_layer(environ: Mapping[str, str]) -> dict[str, Any]:
    """ROPEWAY_ENGINE, _BLOBS, _URL and ROPEWAY_<SECTION>_<SETTING>; an unknown setting of a section is an error."""
    named = [name for name in ("engine", "blobs", "url") if _set(environ, name)]
    layer: dict[str, Any] = {name: environ[PREFIX + name.upper()] for name in named}
    for section, kind in _SECTIONS.items():
        start = f"{PREFIX}{section.upper()}_"
        found = {name.removeprefix(start).lower(): text for name, text in environ.items() if name.startswith(start)}
        if found:
            layer[section] = {name: _parsed(kind, name, text) for name, text in found.items()}
    return layer


def _set(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(PREFIX + name.upper()))


def _parsed(kind: type[msgspec.Struct], name: str, text: str) -> Any:
    """A list is written with commas; all else is converted by type afterwards."""
    is_list = name in kind.__struct_fields__ and isinstance(getattr(kind(), name), tuple)
    return [part.strip() for part in text.split(",") if part.strip()] if is_list else text


def _told(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags without those that were not given."""
    told: dict[str, Any] = {}
    for name, value in flags.items():
        if isinstance(value, Mapping):
            if inner := _told(value):
                told[name] = inner
        elif value is not None:
            told[name] = value
    return told


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, Mapping) else value
    return merged


def _check(where: str, layer: Mapping[str, Any]) -> None:
    try:
        _converted(layer)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.detail}") from error


def _converted(tree: Mapping[str, Any]) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{error}") from error
