"""A directory with a short path, so that the processes' sockets can be beside the file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rw-"))
    yield path
    shutil.rmtree(path)
