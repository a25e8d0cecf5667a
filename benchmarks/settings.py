"""What the caller asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The options of one call of the benchmark.

    `quick` divides the sizes, for a look at whether everything works: its figures mean little.
    `folder` holds the stores while they are measured: its file system is part of the result.
    """

    runs: int
    quick: bool
    long: bool
    engines: tuple[str, ...]
    peers: tuple[str, ...]
    folder: Path

    def size(self, full: int, quick: int) -> int:
        """How many: `full`, or `quick` in a quick run."""
        return quick if self.quick else full
