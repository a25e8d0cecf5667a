"""The crops example as it is deployed: a gateway and workers in processes of their own, on Valkey and on SQLite."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from chat_support import browser, expect, page_of
from crops_support import LARGE, PATIENCE_S, Crops, Processes, crops_of, killed_at, pines
from examples.crops.settings import CropsSettings

from ropeway import connect
from servers import shared_server

pytestmark = pytest.mark.slow


async def deployed(stack: AsyncExitStack, url: str, home: Path) -> tuple[Processes, Crops]:
    """A gateway that serves, and somebody to ask it."""
    processes = Processes(url, home)
    stack.push_async_callback(processes.end)
    await processes.gateway()
    engine = connect(url)
    await engine.open()
    stack.push_async_callback(engine.shut)
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=processes.url, timeout=PATIENCE_S))
    return processes, Crops(http, engine, CropsSettings(results=f"sqlite:///{home}/results.db"))


async def test_a_worker_that_is_killed_loses_nothing(home: Path) -> None:
    """Two workers on Valkey, five images, `kill -9` of the one that is busy: every image is done, with one row each."""
    url = f"{shared_server().url}/0?prefix=crops-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        processes, served = await deployed(stack, url, home)
        await asyncio.gather(processes.worker("worker-1"), processes.worker("worker-2"))
        large = await served.accepted(pines(1, LARGE), crop="large")
        small = [await served.accepted(pines(turn), crop=f"turn-{turn}") for turn in range(2, 6)]
        await killed_at(served, large["job_id"])
        ended = [await served.result(job["job_id"]) for job in (large, *small)]
        assert [one["status"] for one in ended] == ["succeeded"] * 5
        assert ended[0]["attempt"] == 2
        assert crops_of(served) == ["large", "turn-2", "turn-3", "turn-4", "turn-5"]
        stats = (await served.http.get("/api/queue/stats")).json()
        assert (stats["finished"], stats["failed"], stats["queued"], stats["running"]) == (5, 0, 0, 0)


async def test_a_person_sees_an_image_through_and_the_next_attempt(home: Path) -> None:
    """Upload, steps, map and verdict in a real browser; a reload goes on; a killed worker is told of; and a refusal."""
    async with AsyncExitStack() as stack:
        processes, served = await deployed(stack, f"sqlite:///{home}/crops.db", home)
        await processes.worker("worker-1")
        page = await stack.enter_async_context(
            page_of(await stack.enter_async_context(browser()), processes.url, quiet=False)
        )
        await page.get_by_label("Field", exact=True).fill("north")
        await page.locator("#file").set_input_files(
            {"name": "words.tif", "mimeType": "image/tiff", "buffer": b"x" * 30_000}
        )
        await expect(page.get_by_role("alert")).to_contain_text("holds no TIFF, PNG or JPEG image")

        image = home / "large.tif"
        image.write_bytes(pines(1, LARGE))
        await page.locator("#file").set_input_files(image)
        await expect(page.locator("#steps [aria-current=step]")).to_be_visible()
        await page.reload()
        await expect(page.get_by_role("heading", name="Analysis", exact=True)).to_be_visible()
        job_id = page.url.partition("#")[2]
        await killed_at(served, job_id)
        attempts = page.get_by_role("list", name="Attempts").get_by_role("listitem")
        await expect(attempts.nth(0)).to_contain_text("its worker was lost")
        await expect(attempts.nth(1)).to_contain_text("Attempt 2 on worker-1")
        await expect(page.locator("#state")).to_have_text("Done")
        await expect(page.locator("#verdict")).to_contain_text("row crop")
        await expect(page.get_by_role("tab", name="NDVI")).to_have_attribute("aria-selected", "true")
        shown = "document.querySelector('#map').naturalWidth > 100"
        await page.wait_for_function(shown)
        await page.get_by_role("tab", name="Classes").click()
        await expect(page.locator("#legend")).to_contain_text("woods")
        await page.set_viewport_size({"width": 320, "height": 700})
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
