"""What happened in a fault test: what was promised, and what each reader saw; kept as it is told, and in a file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Order", "Seen", "Story"]


class Order(NamedTuple):
    """A job that a client wants: its idempotency key, its task, and what it must come to."""

    key: str
    task: str
    word: str


class Seen(NamedTuple):
    """An event as a reader saw it."""

    id: str
    type: str
    data: Any


class Story:
    """The history of one run. `orders` are what was asked, whether or not an answer came."""

    def __init__(self, file: Path) -> None:
        self.orders: dict[str, Order] = {}
        self.promised: dict[str, str] = {}
        self.readers: list[tuple[str, list[Seen]]] = []
        self.deaths: list[str] = []
        self.breaches: list[str] = []
        self._file = file.open("a", encoding="utf-8")

    def asked(self, order: Order) -> None:
        self.orders[order.key] = order

    def promise(self, order: Order, job_id: str) -> None:
        """A gateway answered 202, or 200 to a repeat."""
        self._tell("promise", key=order.key, job=job_id)
        if self.promised.setdefault(order.key, job_id) != job_id:
            self.breaches.append(f"key {order.key} was given {self.promised[order.key]} and {job_id}")

    def reader(self, job_id: str) -> list[Seen]:
        """A new reader of this job; what it sees is to be added."""
        seen: list[Seen] = []
        self.readers.append((job_id, seen))
        return seen

    def death(self, who: str) -> None:
        self._tell("death", who=who)
        self.deaths.append(who)

    def close(self) -> None:
        for job_id, seen in self.readers:
            self._tell("reader", job=job_id, seen=[[event.id, event.type] for event in seen])
        self._file.close()

    def _tell(self, kind: str, **facts: Any) -> None:
        self._file.write(json.dumps({"at_ms": time.time_ns() // 1_000_000, "kind": kind, **facts}) + "\n")
