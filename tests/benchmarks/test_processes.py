"""The benchmark's processes: nothing outlives it, and one that fails is told of and not waited for."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from benchmarks.cases.together import drain_together
from benchmarks.launch import DriverFailed, minded, started
from benchmarks.live import Live
from benchmarks.perform import perform
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.subjects import Subject, own
from benchmarks.table import Case, Column, Outcome, Sample
from rich.console import Console

DRIVER = [sys.executable, "-m", "benchmarks.own.queue"]


def quiet(_: str) -> None:
    pass


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def asking(verb: str, **spec: object) -> list[str]:
    return [*DRIVER, json.dumps({"verb": verb, "url": "memory:", **spec})]


async def test_a_driver_gives_its_result(tmp_path: Path) -> None:
    """Ten jobs submitted by a process of its own, counted and timed there."""
    async with started(asking("submit", mode="bulk", count=10), tmp_path / "log", quiet) as child:
        result = await child.result()

    assert result["jobs"] == 10
    assert result["wall_s"] > 0


async def test_a_driver_drains_what_it_was_given(tmp_path: Path) -> None:
    """Every job has a result in the end, and the driver says so itself."""
    async with started(asking("drain", count=40, slots=10, task="noop"), tmp_path / "log", quiet) as child:
        result = await child.result()

    assert result["stored"] == 40


async def test_a_driver_ends_with_its_standard_input(tmp_path: Path) -> None:
    """So nothing is left behind however the benchmark ends."""
    async with started(asking("serve"), tmp_path / "log", quiet) as child:
        await child.ready()
        await child.end()

        assert not is_there(child.pid)


async def test_a_program_that_is_not_ours_ends_with_its_minder(tmp_path: Path) -> None:
    """The peers' server and the HTTP server know nothing of our standard input; their minder does."""
    async with started(minded("sleep", "600"), tmp_path / "log", quiet) as minder:
        pid = int(await minder.line())
        assert is_there(pid)

    assert not is_there(pid)


async def test_a_driver_that_fails_says_why(tmp_path: Path) -> None:
    """What it wrote to its standard error is in the error."""
    async with started(asking("no such verb"), tmp_path / "log", quiet) as child:
        with pytest.raises(DriverFailed, match="no such verb"):
            await child.result()


async def test_a_failure_is_told_in_its_row_and_the_others_go_on(tmp_path: Path) -> None:
    """One peer that does not run must not cost the table."""

    async def measure(run: Run) -> Sample:
        if run.subject.engine == "memory":
            raise DriverFailed("this engine is out of order")
        return {"rate": 1.0}

    broken, sound = (await _performed(_case(measure), tmp_path)).rows

    assert (broken.samples, broken.faults) == ([None], ["this engine is out of order"])
    assert (sound.samples, sound.faults) == ([{"rate": 1.0}], [])


async def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """A deadline for every measurement: here a worker that nobody stops, given no time at all."""

    async def measure(run: Run) -> Sample:
        async with run.start("serve") as child:
            await child.result()
        raise AssertionError

    outcome = await _performed(_case(measure, deadline_s=0.0), tmp_path)

    assert [row.faults for row in outcome.rows] == [["not done within 0 s"]] * 2
    assert names_in(tmp_path) == []


async def _performed(case: Case, folder: Path) -> Outcome:
    settings = Settings(1, True, False, ("memory", "sqlite"), (), folder)
    return await perform(case, settings, None, "", Live(Console(quiet=True), 1))


def _case(measure: Callable[[Run], Awaitable[Sample]], deadline_s: float = 60.0) -> Case:
    def subjects(settings: Settings) -> list[Subject]:
        return [own(engine) for engine in settings.engines]

    return Case("case", "A case", "", "", (Column("rate", "jobs/s"),), subjects, measure, deadline_s=deadline_s)


async def test_two_workers_drain_one_store_together(tmp_path: Path) -> None:
    """They begin together, and what they did is counted together: every job once."""
    subject = own("sqlite", task="noop", slots=10)
    settings = Settings(1, True, False, ("sqlite",), (), tmp_path)
    run = Run(settings, subject, tmp_path, None, quiet)
    await run.do("submit", mode="bulk", count=400)

    together = await drain_together(run, 400, workers=2)

    assert together.ran == 400
    assert 0 < together.jobs <= 400
    assert together.wall_s > 0
    assert together.cpu_s > 0


async def test_one_of_two_workers_may_do_it_all(tmp_path: Path) -> None:
    """A single job: one worker runs it, and the other ends with it."""
    settings = Settings(1, True, False, ("sqlite",), (), tmp_path)
    run = Run(settings, own("sqlite", task="noop", slots=10), tmp_path, None, quiet)
    await run.do("submit", mode="bulk", count=1)

    assert (await drain_together(run, 1, workers=2)).ran == 1
