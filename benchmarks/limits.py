"""Lifts the limit of open files, then becomes the module named: `python -m benchmarks.limits MODULE ARGUMENT...`."""

from __future__ import annotations

import os
import sys

from benchmarks.measure import raise_file_limit

__all__: list[str] = []

if __name__ == "__main__":
    raise_file_limit()
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:]])
