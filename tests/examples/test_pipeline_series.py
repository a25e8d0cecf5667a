"""The time series: one point a second from one process, kept in the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from examples.pipeline import recorder
from pipeline_support import Pipeline, eventually, pipeline


async def points_of(served: Pipeline, at_least: int) -> list[dict[str, Any]]:
    """The series, once it has so many points."""

    async def enough() -> bool:
        return len((await served.get("/metrics/series"))["points"]) >= at_least

    await eventually(enough, f"{at_least} points are recorded")
    points: list[dict[str, Any]] = (await served.get("/metrics/series"))["points"]
    return points


@pytest.fixture(autouse=True)
def quick_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points come every 20 ms here, and a window lasts for years: none ends in a test by chance."""
    monkeypatch.setattr(recorder, "PERIOD_S", 0.02)
    monkeypatch.setattr(recorder, "WINDOW_S", 1e9)


async def test_the_series_tells_queue_threads_and_progress() -> None:
    """Queued in all and for each worker, active threads, processed: in order of time."""
    async with pipeline() as served:
        await served.ended("counted")
        recorded = len((await served.get("/metrics/series"))["points"])
        points = await points_of(served, recorded + 2)
    assert points[-1]["processed"] == 1
    assert points[-1]["queued"] == points[-1]["running"] == points[-1]["active_threads"] == 0
    assert points[-1]["queued_per_worker"] == 0
    assert points[-1]["workers"] == {"w1": 0}
    assert [point["at"] for point in points] == sorted(point["at"] for point in points)


async def test_the_series_survives_a_restart_and_goes_on(tmp_path: Path) -> None:
    """What was recorded before is still there, and the next process adds to the same window."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    async with pipeline(url) as served:
        before = await points_of(served, 3)
    async with pipeline(url) as served:
        after = await points_of(served, len(before) + 5)
        windows = await served.get("/v1/jobs?queue=pipeline-metrics")
    assert after[: len(before)] == before
    assert len(windows["data"]) == 1


async def test_only_one_process_records(tmp_path: Path) -> None:
    """Two gateways on one store: one job for the window, leased by one of them, read by both."""
    url = f"sqlite:///{tmp_path}/pipeline.db"
    async with pipeline(url) as one, pipeline(url) as two:
        await points_of(one, 3)
        assert await points_of(two, 3)
        running = (await two.get("/v1/jobs?queue=pipeline-metrics&state=running"))["data"]
        waiting = (await two.get("/v1/jobs?queue=pipeline-metrics&state=queued"))["data"]
    assert len(running) == 1
    assert waiting == []


async def test_a_window_ends_and_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job records one window and has a retention; the series goes on in the next, without a seam."""
    monkeypatch.setattr(recorder, "WINDOW_S", 0.5)
    async with pipeline() as served:

        async def second_window() -> bool:
            return len((await served.get("/v1/jobs?queue=pipeline-metrics&state=succeeded"))["data"]) >= 1

        await eventually(second_window, "a window has ended")
        ended = (await served.get("/v1/jobs?queue=pipeline-metrics&state=succeeded"))["data"][0]
        points = await points_of(served, 30)
    assert ended["expires_at"] is not None
    assert [point["at"] for point in points] == sorted(point["at"] for point in points)


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "3601", "1e3", "²", "99999999"])
async def test_a_span_out_of_range_is_refused(seconds: str) -> None:
    """400 that names the parameter."""
    async with pipeline() as served:
        answer = await served.http.get("/metrics/series", params={"seconds": seconds})
    assert answer.status_code == 400
    assert answer.json()["param"] == "seconds"
