"""What can be measured: Ropeway on an engine, a peer on its default backend, a bare thing to compare with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.venvs import python_of

__all__ = ["PEERS", "Subject", "bare", "own", "peer"]

PEERS = ("huey", "arq", "saq", "rq")


@dataclass(frozen=True)
class Subject:
    """A row of a table.

    Attributes:
        name: as the table shows it.
        group: `own`, `peer` or `bare`.
        driver: the module that runs it.
        environment: the virtual environment that the driver runs in; None is the benchmark's own.
        engine: of `own` ones, `memory` or `sqlite`; empty for the others.
        settings: what it is given, in the words of its own documents; shown beside the table.
        spec: goes to the driver as it is.
    """

    name: str
    group: str
    driver: str
    environment: str | None = None
    engine: str = ""
    settings: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)

    def python(self, say: Callable[[str], None]) -> Path:
        """The interpreter that runs the driver."""
        return Path(sys.executable) if self.environment is None else python_of(self.environment, say)

    @property
    def needs_store(self) -> bool:
        return self.group == "peer"


def own(
    engine: str, *, driver: str = "benchmarks.own.queue", suffix: str = "", settings: str = "", **spec: Any
) -> Subject:
    """Ropeway on one of its engines."""
    return Subject(f"ropeway {engine}{suffix}", "own", driver, engine=engine, settings=settings, spec=spec)


def peer(name: str, *, suffix: str = "", settings: str = "", **spec: Any) -> Subject:
    """A peer, driven in its own environment."""
    return Subject(name + suffix, "peer", f"benchmarks.peers.{name}", environment=name, settings=settings, spec=spec)


def bare(name: str, driver: str, *, settings: str = "", **spec: Any) -> Subject:
    """Something that does less, to compare with."""
    return Subject(name, "bare", driver, settings=settings, spec=spec)
