"""Performs cases: every subject once, then all of them again, so that a busy minute hits them all alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks import facts
from benchmarks.launch import DriverFailed
from benchmarks.live import Live
from benchmarks.run import running
from benchmarks.settings import Settings
from benchmarks.subjects import Subject
from benchmarks.table import Case, Outcome, Row, Sample
from benchmarks.venvs import VenvFailed

__all__ = ["measurements", "perform"]


def measurements(case: Case, settings: Settings) -> int:
    """How many there are to do."""
    return len(case.subjects(settings)) * settings.runs


async def perform(case: Case, settings: Settings, binary: str | None, command: str, live: Live) -> Outcome:
    """Fill in a table. What fails is told in it; the rest goes on."""
    subjects = case.subjects(settings)
    rows = [Row(subject.name, subject.group, subject.settings) for subject in subjects]
    at = datetime.now(UTC)
    told = facts.gather(settings.peers, binary, settings.folder) | {"load before": facts.load()}
    for number in range(1, settings.runs + 1):
        for subject, row in zip(subjects, rows, strict=True):
            with live.measuring(f"{case.name}, run {number}, {subject.name}"):
                await _fill(row, case, settings, subject, binary, live.say)
    return Outcome(case.name, command, f"{at:%Y-%m-%d %H:%M} UTC", settings.runs, settings.quick, told, rows)


async def _fill(
    row: Row, case: Case, settings: Settings, subject: Subject, binary: str | None, say: Callable[[str], None]
) -> None:
    """One measurement, into its row."""
    try:
        row.samples.append(await _measured(case, settings, subject, binary, say))
    except TimeoutError:
        row.samples.append(None)
        row.faults.append(f"not done within {case.deadline_s:.0f} s")
    except (DriverFailed, VenvFailed, AssertionError, OSError) as fault:
        row.samples.append(None)
        row.faults.append(str(fault))


async def _measured(
    case: Case, settings: Settings, subject: Subject, binary: str | None, say: Callable[[str], None]
) -> Sample:
    await asyncio.to_thread(subject.python, say)  # its environment, before the clock of the deadline runs
    async with asyncio.timeout(case.deadline_s), running(settings, subject, binary, say) as run:
        return await case.measure(run)
