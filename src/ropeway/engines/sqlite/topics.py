"""Which hints a transaction owes (see `engines.hints`), gathered without doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["Topics"]


class Topics:
    """The topics that a transaction touched. Kept apart by kind: names are only built for those who hear them."""

    __slots__ = ("_general", "ends", "jobs")

    def __init__(self) -> None:
        self.jobs: set[str] = set()
        self.ends: set[str] = set()  # of those, which ended or have gone
        self._general: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.jobs or self._general)

    def __iter__(self) -> Iterator[str]:
        yield from self._general
        for job_id in self.jobs:
            yield f"job:{job_id}"
        for job_id in self.ends:
            yield f"end:{job_id}"

    def queue(self, name: str) -> None:
        self._general.add(f"queue:{name}")

    def worker(self, session: str | None) -> None:
        self._general.add(f"worker:{session}")

    def upkeep(self) -> None:
        self._general.add("upkeep")

    def lifecycle(self) -> None:
        self._general.add("lifecycle")

    def heard(self, hears: Callable[[str], bool]) -> list[str]:
        """Those that somebody listens to."""
        return [topic for topic in self if hears(topic)]

    def add(self, other: Topics) -> None:
        """Take another transaction's too."""
        self.jobs |= other.jobs
        self.ends |= other.ends
        self._general |= other._general
