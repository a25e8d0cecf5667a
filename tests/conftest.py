"""What all tests share: the suites' own assertions are told as a test's are, and a folder for what has sockets."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("ropeway.testing.bench", "ropeway.testing.conformance")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short path, so that the sockets of an engine's processes can be beside its file."""
    path = Path(tempfile.mkdtemp(prefix="rw-"))
    yield path
    shutil.rmtree(path)
