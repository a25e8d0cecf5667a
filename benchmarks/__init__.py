"""Ropeway beside its peers, measured in one run: `python -m benchmarks --help`."""

from __future__ import annotations

__all__: list[str] = []
