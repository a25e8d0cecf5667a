"""OpenAI's interface over jobs: each route translates a call to one job, and that job's log back to an answer."""

from __future__ import annotations

from ropeway.serving.openai.rooms import OpenAI

__all__ = ["OpenAI"]
