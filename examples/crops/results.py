"""Results in a SQL database as well, for reports and joins: one row a job, written once, by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from examples.crops.shapes import Analysis

__all__ = ["ResultStore", "results"]

results = sa.Table(
    "crop_results",
    sa.MetaData(),
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("crop_id", sa.String(128), nullable=False, index=True),
    sa.Column("crop_type", sa.String(64)),
    sa.Column("confidence", sa.Float),
    sa.Column("soil_health", sa.String(16)),
    sa.Column("ndvi", sa.Float),
    sa.Column("irrigation_needed", sa.Boolean),
    sa.Column("model_version", sa.String(64)),
    sa.Column("shares", sa.JSON, nullable=False),
    sa.Column("indices", sa.JSON, nullable=False),
    sa.Column("analysed_at", sa.DateTime(timezone=True), nullable=False),
)

_COLUMNS = ("crop_id", "crop_type", "confidence", "soil_health", "ndvi", "irrigation_needed", "model_version", "shares")
BUSY_S = 30


class ResultStore:
    """Any number of workers may write at once: SQLite waits for its lock, PostgreSQL needs none.

    Everything blocks. Raises sqlalchemy.exc.SQLAlchemyError when the database cannot be had.
    """

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        arguments: dict[str, Any] = {"timeout": BUSY_S} if parsed.get_backend_name() == "sqlite" else {}
        self._engine = sa.create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
        self._make()

    def keep(self, job_id: str, analysis: Analysis) -> bool:
        """Write a job's result, unless it is there: an attempt that was cut off after this may have left it.

        Whether it was news.
        """
        row = {name: getattr(analysis, name) for name in _COLUMNS}
        row |= {
            "job_id": job_id,
            "indices": {name: {"mean": told.mean, "median": told.median} for name, told in analysis.indices.items()},
            "analysed_at": datetime.now(UTC),
        }
        with self._engine.begin() as connection:
            told = connection.execute(self._insert().values(row).returning(results.c.job_id))
            return told.first() is not None  # a count of rows is not told by every driver

    def forget(self, job_id: str) -> None:
        """Take a row away: its job was cancelled after all."""
        with self._engine.begin() as connection:
            connection.execute(results.delete().where(results.c.job_id == job_id))

    def find(self, crop_id: str, limit: int = 100) -> Sequence[sa.RowMapping]:
        """A crop's results, the newest first."""
        query = results.select().where(results.c.crop_id == crop_id)
        with self._engine.connect() as connection:
            return connection.execute(query.order_by(results.c.analysed_at.desc()).limit(limit)).mappings().all()

    def close(self) -> None:
        self._engine.dispose()

    def _insert(self) -> Any:
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        return insert(results).on_conflict_do_nothing(index_elements=["job_id"])

    def _make(self) -> None:
        """The table and its index, whoever else makes them now: in PostgreSQL `IF NOT EXISTS` alone is a race."""
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(results.name))))
            connection.execute(CreateTable(results, if_not_exists=True))
            for index in results.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
