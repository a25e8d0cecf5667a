"""Drivers of the peers. Each runs inside its peer's own environment, as `python -m benchmarks.peers.NAME SPEC`."""

from __future__ import annotations

__all__: list[str] = []
