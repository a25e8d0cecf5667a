"""What can be measured: Ropeway on an engine, a peer on a server like its, a bare thing to compare with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.store import SYNCS
from benchmarks.venvs import python_of

__all__ = ["ENGINES", "Subject", "bare", "own", "peer", "synced"]

ENGINES = ("memory", "sqlite", "redis")


@dataclass(frozen=True)
class Subject:
    """A row of a table.

    Attributes:
        name: as the table shows it.
        group: `own`, `peer` or `bare`.
        driver: the module that runs it.
        environment: the virtual environment that the driver runs in; None is the benchmark's own.
        engine: of `own` ones, `memory`, `sqlite` or `redis`; empty for the others.
        sync: what its server syncs, of those that have one (`SYNCS`).
        settings: what it is given, in the words of its own documents; shown beside the table.
        spec: goes to the driver as it is.
    """

    name: str
    group: str
    driver: str
    environment: str | None = None
    engine: str = ""
    sync: str = ""
    settings: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)

    def python(self, say: Callable[[str], None]) -> Path:
        """The interpreter that runs the driver."""
        return Path(sys.executable) if self.environment is None else python_of(self.environment, say)

    @property
    def needs_store(self) -> bool:
        return bool(self.sync)


def own(
    engine: str, *, driver: str = "benchmarks.own.queue", suffix: str = "", settings: str = "", **spec: Any
) -> Subject:
    """Ropeway on one of its engines; on redis with the server that peers have too, which syncs nothing."""
    sync = "memory" if engine == "redis" else ""
    settings = "; ".join(filter(None, (settings, SYNCS[sync]))) if sync else settings
    return Subject(f"ropeway {engine}{suffix}", "own", driver, engine=engine, sync=sync, settings=settings, spec=spec)


def synced(engines: Sequence[str], *, suffix: str = "", settings: str = "", **spec: Any) -> list[Subject]:
    """Ropeway on servers with an append-only file, synced every second and with every write; none without redis."""
    every = {"window": ", everysec", "disk": ", always"} if "redis" in engines else {}
    return [
        Subject(
            f"ropeway redis{suffix}{name}",
            "own",
            "benchmarks.own.queue",
            engine="redis",
            sync=sync,
            settings=f"{settings}; {SYNCS[sync]}",
            spec=spec,
        )
        for sync, name in every.items()
    ]


def peer(name: str, *, suffix: str = "", settings: str = "", **spec: Any) -> Subject:
    """A peer, driven in its own environment."""
    driver = f"benchmarks.peers.{name}"
    return Subject(name + suffix, "peer", driver, environment=name, sync="memory", settings=settings, spec=spec)


def bare(name: str, driver: str, *, settings: str = "", **spec: Any) -> Subject:
    """Something that does less, to compare with."""
    return Subject(name, "bare", driver, settings=settings, spec=spec)
