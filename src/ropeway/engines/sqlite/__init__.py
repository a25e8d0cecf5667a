"""The engine in one SQLite file: nothing to install beside it, several processes on it, durability class `disk`."""

from ropeway.engines.sqlite.connection import SqliteOptions
from ropeway.engines.sqlite.engine import SqliteEngine
from ropeway.engines.sqlite.renewer import SqliteRenewer

__all__ = ["SqliteEngine", "SqliteOptions", "SqliteRenewer"]
