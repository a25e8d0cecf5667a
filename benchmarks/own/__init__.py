"""Ropeway's own drivers: the same verbs as the peers', in this project's environment."""

from __future__ import annotations

__all__: list[str] = []
