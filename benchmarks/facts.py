"""Where and with what a table was made: the machine, the versions, how busy it was."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import venvs
from benchmarks.launch import REPOSITORY
from benchmarks.store import server_version

__all__ = ["gather", "load"]

_PARTS = ("apsw", "hiredis", "uvicorn", "httptools", "msgspec", "starlette", "uvloop", "fastapi")


def gather(peers: Sequence[str], binary: str | None, folder: Path) -> dict[str, str]:
    """Facts to print above a table."""
    facts = {
        "machine": f"{os.cpu_count()} x {_processor()}, {_memory_gib():.0f} GiB, Linux {platform.release()}",
        "python": platform.python_version(),
        "ropeway": f"{version('ropeway')} at {_commit()}",
        "parts": ", ".join(f"{part} {version(part)}" for part in _PARTS),
        "sqlite": _sqlite(),
        "stores on": _filesystem(folder),
    }
    if binary is not None:
        facts["server"] = f"{server_version(binary)}, which syncs nothing to the disk unless a row says so"
    return facts | {peer: venvs.versions(peer) for peer in peers}


def load() -> str:
    """The load average of the last minute: how busy the machine is with other things too."""
    return f"{os.getloadavg()[0]:.1f}"


def _sqlite() -> str:
    import apsw

    return f"{apsw.sqlite_lib_version()}, WAL"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (
        f"{git('rev-parse', '--short', 'HEAD') or 'no commit'}{' with changes' if git('status', '--porcelain') else ''}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _filesystem(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(holding, key=lambda each: len(each[0]))[1]
