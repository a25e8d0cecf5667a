"""A job that is to run at an instant, on an engine and behind a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgi_wire import AsgiWire
from client_support import GREET

from ropeway.client import Client
from ropeway.domain.errors import InvalidRequest
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway
from ropeway.testing import ManualClock, seeded_random

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 12, 24, 12, tzinfo=BERLIN)


@pytest.fixture(name="client", params=["engine", "gateway"])
async def make_client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    clock = ManualClock(round(NOW.timestamp() * 1000))
    engine = MemoryEngine(clock, seeded_random("engine"))
    await engine.open()
    await engine.publish([GREET.card])
    gateway = Gateway(engine, clock=clock)
    made = (
        Client(engine, clock=clock) if request.param == "engine" else Client("http://localhost", wire=AsgiWire(gateway))
    )
    async with made as client:
        yield client
    await gateway.stop()
    await engine.shut()


@pytest.mark.parametrize(
    "told",
    [NOW + timedelta(hours=6), "2026-12-24T18:00:00+01:00", "2026-12-24T17:00:00Z", "2026-12-24T18:00[Europe/Berlin]"],
    ids=str,
)
async def test_it_waits_for_its_instant(client: Client, told: Any) -> None:
    """However it is written, with its offset or its zone."""
    job = await (await client.with_options(run_at=told).submit(GREET, "Ada")).get()
    assert (job.state, job.run_at) == ("scheduled", "2026-12-24T17:00:00.000Z")


async def test_an_instant_that_has_passed_is_now(client: Client) -> None:
    """As a delay of nothing."""
    job = await (await client.with_options(run_at="2026-12-24T11:59:59+01:00").submit(GREET, "Ada")).get()
    assert (job.state, job.run_at) == ("queued", None)


async def test_under_a_key_it_is_the_same_job(client: Client) -> None:
    """The instant is what was asked, not how far away it was then."""
    options: dict[str, Any] = {"run_at": "2026-12-24T18:00:00+01:00", "idempotency_key": "k"}
    first = await client.with_options(**options).submit(GREET, "Ada")
    again = await client.with_options(**options).submit(GREET, "Ada")
    assert (again.id, again.replayed) == (first.id, True)


@pytest.mark.parametrize(
    "options",
    [
        {"run_at": "2026-12-24T18:00:00"},
        {"run_at": datetime(2026, 12, 24, 18)},
        {"run_at": "tomorrow"},
        {"run_at": "2036-12-24T18:00:00Z"},
        {"run_at": "2026-12-24T18:00:00Z", "delay": 5},
    ],
    ids=str,
)
async def test_what_is_no_instant_is_refused(client: Client, options: Any) -> None:
    """One without offset or zone is nobody's; `run_at` is named."""
    with pytest.raises(InvalidRequest) as refused:
        await client.with_options(**options).submit(GREET, "Ada")
    assert refused.value.param == "run_at"
