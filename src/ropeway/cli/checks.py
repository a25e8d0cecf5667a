"""What `ropeway doctor` looks at: this Python, this machine, and where the engine's file would live."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from ropeway.runtime.sizing import read_machine

__all__ = ["MEANINGS", "Finding", "folder_findings", "limit_findings", "python_findings"]

Level = Literal["ok", "warn", "fail"]

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs", "afs"}
)
MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})
WAL_RESET_FIXED = (3, 51, 3)  # SQLite 3.7.0 to 3.51.2 can corrupt a WAL file that is reset under a reader
OPEN_FILES_WANTED = 4096  # a reader, a waiter and an upstream connection each hold one
THREADS_WANTED = 4096
FREE_BYTES_WANTED = 1 << 30
FSYNC_SLOW_MS = 5.0  # a spinning disk's; group commit hides it in bulk, not from one submit
FSYNC_SAMPLES = 25


MEANINGS = {
    "disk": "it is written and synced: a power cut takes nothing that was acknowledged",
    "window": "it is stored; a power cut may take the last second or two",
    "memory": "it is in the server's memory: a restart may take it",
}
"""What each durability class promises of an accepted job."""


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: what it is, and what to do if it is not well."""

    name: str
    level: Level
    value: str
    advice: str = ""


def python_findings() -> Iterator[Finding]:
    """The interpreter and the libraries that decide speed and safety."""
    version = platform.python_version()
    yield Finding("python", "ok", f"{platform.python_implementation()} {version} on {platform.platform()}")
    if importlib.util.find_spec("uvloop") is not None:
        yield Finding("event loop", "ok", "uvloop")
    else:
        advice = "pip install uvloop: a worker does about a third more" if os.name == "posix" else ""
        yield Finding("event loop", "warn" if advice else "ok", "asyncio", advice)
    yield _sqlite_finding()


def _sqlite_finding() -> Finding:
    import apsw  # the sqlite engine's own; doctor must also run where it is broken

    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < WAL_RESET_FIXED:
        return Finding("sqlite", "fail", version, "this version can lose data under WAL: pip install -U apsw")
    return Finding("sqlite", "ok", f"{version} (carried by apsw {apsw.apsw_version()})")


def folder_findings(folder: Path) -> Iterator[Finding]:
    """Whether `folder` can hold an engine's file: its file system, its room, and what a sync costs there."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding("folder", "fail", str(folder), "it must exist and be writable")
        return
    yield _file_system_finding(folder)
    free = shutil.disk_usage(folder).free
    short = free < FREE_BYTES_WANTED
    advice = "below 1 GiB: a full disk refuses submits" if short else ""
    yield Finding("free space", "warn" if short else "ok", f"{free / 2**30:.1f} GiB", advice)
    yield _fsync_finding(folder)


def _file_system_finding(folder: Path) -> Finding:
    kind = file_system_of(folder)
    value = f"{kind or 'unknown'} at {folder}"
    if kind in NETWORK_FILE_SYSTEMS:
        return Finding("file system", "fail", value, "SQLite's locks fail over a network: use a local disk")
    if kind in MEMORY_FILE_SYSTEMS:
        return Finding("file system", "warn", value, "this is memory: jobs do not survive a restart of the machine")
    return Finding("file system", "ok", value)


def file_system_of(folder: Path) -> str | None:
    """The type of the file system that holds `folder`; None where it cannot be told (not on Linux)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    wanted, best, kind = str(folder.resolve()), "", None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = mount.split()[4].encode().decode("unicode_escape")
        if (wanted == point or wanted.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind


def _fsync_finding(folder: Path) -> Finding:
    with tempfile.TemporaryFile(dir=folder) as file:
        samples_ms = [_fsync_ms(file.fileno()) for _ in range(FSYNC_SAMPLES)]
    median = statistics.median(samples_ms)
    value = f"{median:.2f} ms (worst of {FSYNC_SAMPLES}: {max(samples_ms):.2f})"
    if median > FSYNC_SLOW_MS:
        return Finding("sync to disk", "warn", value, "each lone submit waits for it; many at once share one")
    return Finding("sync to disk", "ok", value)


def _fsync_ms(descriptor: int) -> float:
    os.write(descriptor, b"x" * 4096)
    start = time.perf_counter()
    os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)
    return (time.perf_counter() - start) * 1000


def limit_findings() -> Iterator[Finding]:
    """What the system lets one process have."""
    if sys.platform == "win32":
        return
    import resource

    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = files != resource.RLIM_INFINITY and files < OPEN_FILES_WANTED
    advice = f"ulimit -n {OPEN_FILES_WANTED} or more (the hard limit is {_limit_text(most)})" if low else ""
    yield Finding("open files", "warn" if low else "ok", _limit_text(files), advice)
    threads = read_machine().threads
    low = threads < THREADS_WANTED
    advice = "raise the user's process limit or the container's pids limit for many blocking jobs" if low else ""
    yield Finding("threads", "warn" if low else "ok", f"{threads:,}", advice)


def _limit_text(limit: int) -> str:
    import resource

    return "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"
