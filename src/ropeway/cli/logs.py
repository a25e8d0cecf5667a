"""Logs of the processes that serve: one line an event on stderr, with the process that says it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

from ropeway.domain.keys import masked

__all__ = ["LogLevel", "audit_told", "start_logging"]

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], typer.Option("--log-level", envvar="ROPEWAY_LOG", help="What to log.")
]


class _Masking(logging.Formatter):
    """Writes no secret of a key, wherever in a line or its traceback one came from."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def start_logging(level: str, process: str) -> None:
    """Log to stderr from `level` on, as `process`."""
    root = logging.getLogger()
    root.handlers[:] = [_handler(process)]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def audit_told() -> Iterator[None]:
    """Log to stderr what a command changes of keys and secrets meanwhile, as a gateway's log would tell it."""
    log, handler = logging.getLogger("ropeway.audit"), _handler("audit")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _handler(process: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masking(f"%(asctime)s %(levelname)-7s {process}: %(message)s", "%H:%M:%S"))
    return handler
