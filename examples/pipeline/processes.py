"""What this machine's kernel says of processes: threads, memory, CPU. Nothing where there is no /proc."""

from __future__ import annotations

import os
from pathlib import Path

from examples.pipeline.shapes import ProcessUse

__all__ = ["process_use"]


def process_use(name: str, pid: int, proc: Path = Path("/proc")) -> ProcessUse | None:
    """The process as it stands; None when it is not there, or cannot be looked at."""
    try:
        status = (proc / str(pid) / "status").read_text()
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    ticks = stat.rpartition(")")[2].split()[11:13]  # utime and stime, fields 14 and 15 (proc(5)), after "(name)"
    return ProcessUse(
        name=name,
        pid=pid,
        threads=int(facts["Threads"]),
        rss_bytes=int(facts["VmRSS"].split()[0]) * 1024,
        cpu_s=sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
    )
