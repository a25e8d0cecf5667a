"""What a process holds of the memory, and whether the system has just killed one for the want of it.

Counted are anonymous and shared memory (RssAnon, RssShmem), which nobody can take from it. Not counted are pages of
files: weights that are mapped from their file are the page cache's, and it gives them back by itself. Nor is what was
only reserved: GPU libraries and allocators reserve address space by the terabyte, so a limit on that (RLIMIT_AS) would
refuse them where nothing is short.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["held_bytes", "oom_kills"]

PROC = Path("/proc")
_COUNTED = ("RssAnon:", "RssShmem:")


def held_bytes(pid: int, proc: Path = PROC) -> int | None:
    """What the process holds; None where that cannot be read: it is gone, or this system has no /proc."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    counted = [int(line.split()[1]) << 10 for line in lines if line.startswith(_COUNTED)]
    return sum(counted) if counted else None  # a process that is dying has none of these lines


def oom_kills(proc: Path = PROC) -> int:
    """How many processes the kernel has killed for the want of memory, in the machine or in a container of it.

    It counts since the boot; 0 where that cannot be read. What matters is whether it rose.
    """
    try:
        for line in (proc / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
