"""The HTTP side: what a gateway is compared with, and the load on both."""

from __future__ import annotations

__all__: list[str] = []
