"""`python -m ropeway.testing.history MODULE:HARNESS SEED [LENGTH]`: run one history again and tell it call by call."""

from __future__ import annotations

import asyncio
import importlib
import sys

from ropeway.testing.history.checker import check
from ropeway.testing.history.driver import DEFAULT_STEPS, drive


def main(arguments: list[str]) -> int:
    """Prints the history and what it broke; the exit status is 1 when it broke something, 2 for wrong arguments."""
    if len(arguments) not in (2, 3) or ":" not in arguments[0]:
        sys.stderr.write(f"{__doc__}\nThe engine in memory is ropeway.testing.harness:MemoryHarness.\n")
        return 2
    module, _, name = arguments[0].partition(":")
    harness = getattr(importlib.import_module(module), name)()
    length = int(arguments[2]) if len(arguments) == 3 else DEFAULT_STEPS
    history = asyncio.run(drive(int(arguments[1]), harness, length))
    violations = check(history)
    for line in (*history.lines(), *map(str, violations)):
        sys.stdout.write(f"{line}\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
