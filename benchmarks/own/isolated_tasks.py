"""The same functions as tasks on threads, and in children, which import them from here."""

from __future__ import annotations

from collections.abc import Iterator

from ropeway import App

__all__ = ["app"]

app = App()


def noop(n: int) -> int:
    return n


def words(count: int) -> Iterator[str]:
    for _ in range(count):
        yield "word "


app.task(name="noop_thread", queue="thread")(noop)
app.task(name="words_thread", queue="thread")(words)
app.task(name="noop_process", queue="process", run="process", children=1)(noop)
app.task(name="words_process", queue="process", run="process", children=1)(words)
