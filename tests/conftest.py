"""What all tests share: the suites' own assertions are told as a test's are, and a folder for what has sockets."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOW = ("test_docs.py", "faults/", "examples/", "serving/test_crowds.py", "security/", "cli/", "runtime/test_process")
"""The files that take longest. They go first: the processes that share the tests take a file at a time, and whoever has
a long one at the end keeps all waiting."""

pytest.register_assert_rewrite("ropeway.testing.bench", "ropeway.testing.conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        return next((n for n, start in enumerate(SLOW) if path.startswith(start)), len(SLOW))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that was run in this process leaves no handler behind: its stream is closed with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short path, so that the sockets of an engine's processes can be beside its file."""
    path = Path(tempfile.mkdtemp(prefix="rw-"))
    yield path
    shutil.rmtree(path)
