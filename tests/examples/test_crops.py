"""The crops example through HTTP, with the real networks: what is uploaded, refused, found, cached and cancelled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from crops_support import PATIENCE_S, Crops, crops, encoded, geotiff, pines
from examples.crops.classifier import Classifier
from examples.crops.results import ResultStore, results
from examples.crops.shapes import Analysis, ImageFacts, Maps
from examples.crops.work import analyzed
from standardwebhooks import Webhook

from postgres import Postgres
from ropeway import Client, Context, Fail, File
from ropeway.blobs.connect import files_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Dataset has no geotransform")]


def rows(served: Crops) -> list[dict[str, Any]]:
    """What the SQL database holds."""
    engine = sa.create_engine(served.own.results)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(results.select()).mappings()]
    engine.dispose()
    return found


async def blobs(served: Crops) -> int:
    """How many files are kept, known or not."""
    files = files_of(served.engine)
    assert files is not None
    return len([blob async for blob in files.store.scan()])


async def test_an_image_is_analysed_from_its_upload_to_its_row(home: Path) -> None:
    """202 with where to ask; steps; the verdict with maps; a row in SQL; the same image again answers at once."""
    async with crops(home) as served:
        accepted = await served.accepted(pines(), "June 1992.geotiff", "field-7")
        assert (accepted["status"], accepted["crop_id"], accepted["cached"]) == ("queued", "field-7", False)
        assert accepted["poll_url"] == f"/api/results/{accepted['job_id']}"
        ended = await served.result(accepted["job_id"])
        assert (ended["status"], ended["progress_percent"], ended["crop_id"]) == ("succeeded", 100, "field-7")
        result = ended["result"]
        assert result["crop_type"] == "row crop"
        assert result["model_version"].startswith("crops-6-")
        assert (result["soil_health"], result["irrigation_needed"]) == ("good", False)
        assert 0.5 < result["ndvi"] < 0.65
        assert abs(sum(result["shares"].values()) - 1) < 0.01
        assert result["image"]["bands"] == ["B02", "B03", "B04", "B08", "B11", "B12"]
        for address in result["maps"].values():
            png = await served.http.get(address)
            assert png.content.startswith(b"\x89PNG") and png.headers["content-type"] == "image/png"
        (row,) = rows(served)
        assert (row["job_id"], row["crop_id"], row["ndvi"]) == (accepted["job_id"], "field-7", result["ndvi"])

        kept = await blobs(served)
        again = await served.upload(pines(), "another name.tif", "field-7")
        assert again.status_code == 200
        assert (again.json()["job_id"], again.json()["cached"]) == (accepted["job_id"], True)
        assert again.json()["estimated_wait_seconds"] == 0
        assert await blobs(served) == kept, "the same bytes are kept once"
        other = await served.accepted(pines(), crop="field-8")
        assert other["job_id"] != accepted["job_id"], "a result names its crop: another crop has one of its own"
        assert other["estimated_wait_seconds"] > 0
        await served.result(other["job_id"])

        steps = (await served.http.get(f"/v1/jobs/{accepted['job_id']}/events?types=progress&follow=0")).text
        assert '"step":"done"' in steps
        stats = (await served.http.get("/api/queue/stats")).json()
        assert (stats["queued"], stats["active_workers"], stats["finished"], stats["failed"]) == (0, 1, 2, 0)
        assert stats["alerts"] == []


async def test_what_is_no_image_is_refused_with_the_reason(home: Path) -> None:
    """By its content and not by its name alone; with a 400, and nothing of it is kept."""
    two = geotiff(np.ones((2, 120, 120), np.uint16))
    rgb = encoded(np.random.default_rng(1).integers(0, 255, (3, 120, 120), np.uint8), "PNG")
    wrong = {
        "a.txt": (pines(), "'.txt' is no type that is taken"),
        "nothing": (pines(), "the file's name has no type"),
        "words.tif": (b"what we would like to see" * 1_000, "holds no TIFF, PNG or JPEG"),
        "photo.tif": (rgb, "the file's name says GTiff, and its content is PNG"),
        "small.tif": (pines()[:10_000], "too small: 10,000 bytes, at least 20,000 bytes"),
        "large.tif": (pines(least_bytes=400_000), "too large: at most 0.4 MB"),
        "cut.tif": (pines()[:-40_000], "cannot be read"),
        "cut.png": (rgb[:-100], "the PNG image is cut off"),
        "two.tif": (two, "of 2 bands none is known to be red"),
    }
    async with crops(home, worker=False, max_bytes=400_000) as served:
        for name, (content, why) in wrong.items():
            assert why in await served.refused(content, name), name
        raw = await served.http.post("/api/crops/f1/analyze?filename=a.gif", content=b"GIF89a" * 10_000)
        assert (raw.status_code, raw.json()["error"]["param"]) == (400, "file")
        assert (await served.http.post("/api/crops/a%20b/analyze?filename=a.tif", content=pines())).status_code == 400
        no_part = await served.http.post("/api/crops/f1/analyze", files={"image": ("a.tif", pines())})
        assert "field 'image' of the form" in no_part.json()["detail"]
        assert await blobs(served) == 0
        assert (await served.http.get("/api/queue/stats")).json()["queued"] == 0


async def test_other_images_are_told_as_much_of_as_they_hold(home: Path) -> None:
    """Colours alone give no NDVI and no crop, with notes; bands without names go by their order; emptiness fails."""
    random = np.random.default_rng(2)
    four = random.integers(300, 3_000, (4, 120, 120), np.uint16)
    async with crops(home) as served:
        photo, plain, empty = [
            await served.accepted(content, name)
            for content, name in (
                (encoded(random.integers(0, 255, (3, 120, 120), np.uint8), "PNG"), "a.png"),
                (geotiff(four), "b.tiff"),
                (geotiff(np.zeros((4, 120, 120), np.uint16)), "c.tif"),
            )
        ]
        result = (await served.result(photo["job_id"]))["result"]
        assert (result["crop_type"], result["ndvi"], result["soil_health"]) == (None, None, None)
        assert set(result["indices"]) == {"vari"}
        assert any("no near infrared" in note for note in result["notes"])
        result = (await served.result(plain["job_id"]))["result"]
        assert "bands are known by their order, as B02 B03 B04 B08" in result["notes"]
        assert result["model_version"].startswith("crops-4-")
        assert result["irrigation_needed"] is None
        failed = await served.result(empty["job_id"])
        assert (failed["status"], failed["error"]["code"]) == ("failed", "image_refused")
        assert "the image has no data" in failed["error"]["message"]
        assert len(rows(served)) == 2
        job = (await served.http.get(f"/v1/jobs/{empty['job_id']}")).json()
        assert job["attempt"] == 1, "what an image lacks, another attempt does not bring"


async def test_a_waiting_job_is_shared_and_cancelled(home: Path) -> None:
    """The same image twice in line is one job; each cancel takes one away, the last one ends it."""
    async with crops(home, worker=False) as served:
        first, second = [await served.accepted(pines()) for _ in range(2)]
        assert first["job_id"] == second["job_id"] and second["cached"]
        assert second["status"] == "queued" and first["estimated_wait_seconds"] is None
        address = f"/api/results/{first['job_id']}"
        answer = await served.http.get(address)
        assert (answer.status_code, answer.json()["current_step"], answer.json()["progress_percent"]) == (
            202,
            "queued",
            0,
        )
        at = f"/api/jobs/{first['job_id']}"
        assert (await served.http.delete(at)).status_code == 202
        gone = await served.http.delete(at)
        assert (gone.status_code, gone.json()["status"]) == (200, "cancelled")
        assert (await served.http.get(address)).json()["cancel_reason"] == "cancelled by its sender"
        assert (await served.http.delete(at)).status_code == 409
        for method, path in (("GET", "/api/results/job_none"), ("DELETE", "/api/jobs/job_none")):
            assert (await served.http.request(method, path)).status_code == 404


async def test_a_running_job_that_is_cancelled_leaves_nothing_half(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops at its next step: no row, no map; another image in the same call is done as if nothing had been."""
    looking, go_on = threading.Event(), threading.Event()
    classify = Classifier.classify

    def slow(self: Classifier, *arguments: Any) -> Any:
        looking.set()
        assert go_on.wait(PATIENCE_S)
        return classify(self, *arguments)

    monkeypatch.setattr(Classifier, "classify", slow)
    async with crops(home, cpu_batch=2) as served:
        first = await served.accepted(pines())
        await asyncio.to_thread(looking.wait, PATIENCE_S)
        waiting = [await served.accepted(pines(turn), crop=f"turn-{turn}") for turn in (1, 2)]
        shown = await served.http.get(first["poll_url"])
        assert (shown.status_code, shown.json()["status"], shown.json()["attempt"]) == (202, "running", 1)
        assert (await served.http.delete(f"/api/jobs/{first['job_id']}")).status_code == 202
        go_on.set()
        assert (await served.result(first["job_id"]))["status"] == "cancelled"
        for job in waiting:
            assert (await served.result(job["job_id"]))["status"] == "succeeded"
        assert sorted(row["crop_id"] for row in rows(served)) == ["turn-1", "turn-2"]
        maps = [await served.http.get(f"/v1/jobs/{first['job_id']}/events?types=artifact&follow=0")]
        assert "artifact" not in maps[0].text


async def test_the_end_is_told_to_a_webhook_signed(home: Path) -> None:
    """Whoever asked for it gets the whole result once, under the tenant's own signature."""
    heard: asyncio.Queue[tuple[bytes, dict[str, str]]] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head) if name}
        heard.put_nowait((await reader.readexactly(int(headers["content-length"])), headers))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, crops(home) as served, Client(served.engine) as client:
        job = await served.accepted(pines(), params={"webhook_url": f"http://127.0.0.1:{port}/done"})
        async with asyncio.timeout(PATIENCE_S):
            body, headers = await heard.get()
        (secret,) = await client.keys.webhook_secrets("default")
        told = Webhook(secret.secret).verify(body, headers)
        assert (told["type"], told["data"]["id"]) == ("job.succeeded", job["job_id"])
        assert told["data"]["output"]["crop_type"] == "row crop"
        refused = await served.upload(pines(), params={"webhook_url": "http://10.0.0.1/"})
        assert refused.status_code == 400


async def test_what_somebody_should_look_at_is_told(home: Path) -> None:
    """More than fifty that wait, and nobody who works: in the figures, each with its threshold."""
    async with crops(home, worker=False) as served, Client(served.engine) as client:
        for number in range(51):
            await client.submit("analyze", image=f"{number}.tif", crop_id="f1")
        stats = (await served.http.get("/api/queue/stats")).json()
        told = {alert["name"]: (alert["value"], alert["threshold"]) for alert in stats["alerts"]}
        assert told == {"pending": (51, 50), "worker_offline": (1, 0)}
        assert (stats["queued"], stats["active_workers"]) == (51, 0)
        assert (await served.accepted(pines()))["estimated_wait_seconds"] is None


class Standing:
    """A context for an attempt that is told to stop when its row has been written."""

    def __init__(self, store: ResultStore, why: str) -> None:
        self.job_id = "job_1"
        self._store = store
        self._why = why

    @property
    def stop_reason(self) -> str | None:
        return self._why if self._store.find("f1") else None

    @property
    def cancelled(self) -> bool:
        return self.stop_reason is not None

    def progress(self, *_: object) -> None:
        pass

    def artifact(self, name: str, *_: object) -> Any:
        return SimpleNamespace(file=File(name))


@pytest.mark.parametrize(("why", "kept"), [("cancel", 0), ("lost", 1), ("drain", 1), ("timeout", 1)])
def test_a_row_is_taken_away_for_a_cancel_alone(why: str, kept: int, home: Path, tmp_path: Path) -> None:
    """Who lost its lease leaves the row to whoever holds it now: that attempt may have come first."""
    path = tmp_path / "a.tif"
    path.write_bytes(pines())
    store = ResultStore(f"sqlite:///{home}/r.db")
    (end,) = analyzed([path], ["f1"], [cast(Context, Standing(store, why))], Classifier(threads=1), store)
    assert len(store.find("f1")) == kept
    assert isinstance(end, Fail) == (why == "cancel")
    store.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_result_is_written_once(database: str, home: Path) -> None:
    """However often an attempt gets there, and whoever makes the table: the first row stays; it can be taken away."""
    server = Postgres().start() if database == "postgresql" else None
    url = server.url.replace("postgresql:", "postgresql+psycopg:") if server else f"sqlite:///{home}/r.db"
    analysis = Analysis(
        *("woods", 0.9, "good", 0.8, None, "2026-01-01T00:00:00Z", "m", "f1", {"woods": 1.0}, 0.9, 1.0, {}),
        ImageFacts(1, 1, (), 100.0),
        Maps(),
        (),
        "cpu",
        1.0,
    )
    try:
        with ThreadPoolExecutor(16) as threads:
            one, other, *more = threads.map(ResultStore, [url] * 16)
        assert one.keep("job_1", analysis)
        assert not other.keep("job_1", msgspec.structs.replace(analysis, crop_type="corn"))
        assert [(row["crop_type"], row["shares"]) for row in other.find("f1")] == [("woods", {"woods": 1.0})]
        one.forget("job_1")
        assert other.find("f1") == []
        for store in (one, other, *more):
            store.close()
    finally:
        if server is not None:
            server.close()
