"""A load test: `python -m examples.crops.load` uploads images to a server that runs, all at once, and tells in a table.

Each is another image (the sample, with its pixels moved round), so nothing comes out of the cache. It exits with 0 only
when every image that was accepted was analysed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import httpx
import typer
from rich.console import Console
from rich.table import Table

from examples.crops.samples import SAMPLES, sample_bytes

__all__ = ["main"]

POLL_S = 0.2
TIMEOUT_S = 120.0


class Outcome(NamedTuple):
    """One image. Times are seconds; `upload_s` is the whole request, `result_s` from its answer to the result."""

    upload_s: float
    result_s: float
    ran_s: float
    attempts: int
    estimated_s: float | None
    status: str


def main(
    url: Annotated[str, typer.Option(help="Where it is served.")] = "http://127.0.0.1:8006",
    jobs: Annotated[int, typer.Option(min=1, help="Images.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, help="Of them at once.")] = 10,
    mb: Annotated[float, typer.Option(min=0.1, help="Size of each, at least.")] = 6.0,
) -> None:
    """Upload `jobs` images, wait for all results, and print what it took."""
    started = time.strftime("%H%M%S")
    images = [sample_bytes(next(iter(SAMPLES)), round(mb * 1e6), int(started) % 145 + n) for n in range(jobs)]
    began_s = time.perf_counter()
    outcomes = asyncio.run(_run(url, images, concurrency, started))
    _report(outcomes, time.perf_counter() - began_s, len(images[0]))
    raise typer.Exit(any(one.status != "succeeded" for one in outcomes))


async def _run(url: str, images: Sequence[bytes], concurrency: int, started: str) -> list[Outcome]:
    room = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as http:

        async def one(number: int) -> Outcome:
            async with room:
                return await _through(http, images[number], f"load-{started}-{number}")

        return list(await asyncio.gather(*map(one, range(len(images)))))


async def _through(http: httpx.AsyncClient, image: bytes, crop: str) -> Outcome:
    """One image from its upload to its result."""
    began_s = time.perf_counter()
    answer = await http.post(f"/api/crops/{crop}/analyze", params={"filename": f"{crop}.tif"}, content=image)
    uploaded_s = time.perf_counter()
    if answer.status_code not in (200, 202):
        return Outcome(uploaded_s - began_s, 0.0, 0.0, 0, None, f"refused: {answer.status_code}")
    accepted = answer.json()
    while True:
        answer = await http.get(accepted["poll_url"])
        told = answer.json()
        if answer.status_code != 202:
            break
        await asyncio.sleep(POLL_S)
    ran_s = (told.get("result") or {}).get("seconds", 0.0)
    waited_s = time.perf_counter() - uploaded_s
    return Outcome(
        uploaded_s - began_s, waited_s, ran_s, told["attempt"], accepted["estimated_wait_seconds"], told["status"]
    )


def _report(outcomes: Sequence[Outcome], seconds: float, size: int) -> None:
    done = [one for one in outcomes if one.status == "succeeded"]
    table = Table(title=f"{len(outcomes)} images of {size / 1e6:.1f} MB in {seconds:.1f} s")
    for column in ("", "p50", "p95", "worst"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in (
        ("upload, s", [one.upload_s for one in outcomes]),
        ("from its answer to the result, s", [one.result_s for one in done]),
        ("in its call of the model, s", [one.ran_s for one in done]),
        ("result earlier than was estimated, s", _early(done)),
    ):
        if values:
            table.add_row(name, *(f"{_at(values, share):.2f}" for share in (0.5, 0.95, 1.0)))
    console = Console()
    console.print(table)
    console.print(f"{len(done) / seconds:.2f} images/s, {len(done) * size / 1e6 / seconds:.1f} MB/s")
    lost = [one for one in outcomes if one.status != "succeeded"]
    attempts = sum(one.attempts for one in done)
    console.print(
        f"{len(done)} analysed in {attempts} attempts, {len(lost)} not {sorted({one.status for one in lost}) or ''}"
    )


def _early(done: Sequence[Outcome]) -> list[float]:
    return [one.estimated_s - one.result_s for one in done if one.estimated_s is not None]


def _at(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


if __name__ == "__main__":
    typer.run(main)
