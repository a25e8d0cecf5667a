"""Runs a program that is not ours and ends it when our standard input closes, so that nothing is left behind.

`python -m benchmarks.minder PROGRAM ARGUMENT...`: the program's output goes to our standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

__all__: list[str] = []

_GRACE_S = 5.0


def main() -> int:
    """Run the program in the arguments; its exit status."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())

    def follow() -> None:
        sys.stdin.read()
        os.killpg(0, signal.SIGTERM)  # and the children of its own, which some programs leave behind; we lead the group
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=follow, daemon=True).start()
    print(child.pid, flush=True)
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
