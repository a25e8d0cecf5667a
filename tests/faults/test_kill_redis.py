"""kill -9 of gateways, workers and a Valkey at random moments, under load: nothing is lost, doubled or out of place.

By default it is the short form. ROPEWAY_FAULT_S=300 makes it five minutes long, ROPEWAY_FAULT_SEED another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import Crowd
from ledger import HEAL_S, drained, finals
from programs import Fleet
from story import Story
from verdict import findings

from ropeway import connect

LASTS_S = float(os.environ.get("ROPEWAY_FAULT_S", "30"))
SEED = int(os.environ.get("ROPEWAY_FAULT_SEED", "20261"))
VICTIMS = (
    *("server", "server", "server", "lone worker", "lone worker", "supervised worker", "supervised worker"),
    *("server, for long", "gateway", "gateway", "supervisor", "everything"),
)
OUTAGES_S = {"server": 4.0, "server, for long": 20.0}  # the second is longer than a lease

pytestmark = pytest.mark.slow


@pytest.fixture(name="fleet")
def make_fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.stop()


async def chaos(fleet: Fleet, crowd: Crowd, story: Story, dice: random.Random) -> None:
    """Kill something at a random moment, and again, until the time is over."""
    until_s = time.monotonic() + LASTS_S
    while time.monotonic() < until_s:
        await moment(crowd, dice.randint(5, 80), dice.uniform(0.5, 5.0))
        victim = dice.choice(VICTIMS)
        story.death(victim)
        await strike(victim, fleet, crowd, dice)


async def moment(crowd: Crowd, answers: int, within_s: float) -> None:
    """A random moment: so many answers from now, or so many seconds, when few are given."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await crowd.more_answers(answers)


async def strike(victim: str, fleet: Fleet, crowd: Crowd, dice: random.Random) -> None:
    """kill -9. The server is away for a while; everything else comes back at once."""
    which = dice.randrange(2)
    if victim in OUTAGES_S:
        fleet.server.kill()
        await moment(crowd, dice.randint(1, 200), dice.uniform(0.1, OUTAGES_S[victim]))
        await asyncio.to_thread(fleet.server.start)
    elif victim == "everything":
        await asyncio.to_thread(fleet.kill_all)
        await asyncio.to_thread(fleet.start)
    elif victim == "gateway":
        await asyncio.to_thread(fleet.kill_gateway, which)
    elif victim == "lone worker":
        await asyncio.to_thread(fleet.kill_lone_worker)
    elif victim == "supervised worker":
        await asyncio.to_thread(fleet.kill_supervised_worker, which)
    else:
        await asyncio.to_thread(fleet.kill_supervisor)


@pytest.fixture(name="story")
def make_story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path / "history.jsonl")
    yield story
    story.close()


async def test_kill_nine_of_anything_at_random_moments_breaks_no_promise(fleet: Fleet, story: Story) -> None:
    """Every job that was answered 202 ends, once, with its own result; no stream has a gap or a repeat, read from the
    start or resumed; an attempt is lost with a killed worker only."""
    await asyncio.to_thread(fleet.start)
    crowd = Crowd([gateway.url for gateway in fleet.gateways], story, SEED)
    load = asyncio.create_task(crowd.run())
    chaotic = asyncio.create_task(chaos(fleet, crowd, story, random.Random(SEED)))
    await asyncio.wait([load, chaotic], return_when=asyncio.FIRST_COMPLETED)
    if load.done():
        chaotic.cancel()
        await load
    await chaotic
    crowd.close()
    await asyncio.to_thread(fleet.start)
    async with asyncio.timeout(HEAL_S):
        await load

    engine = connect(fleet.server.url)
    await engine.open()
    stored = await drained(engine)
    ended = await finals(engine, list(story.promised.values()))
    await engine.shut()

    runs = fleet.runs.read_text().splitlines()
    crashes = sum(final.job.crashes for final in ended.values())
    print(
        f"{len(story.promised)} jobs promised, {len(runs)} runs, {crashes} attempts lost with killed workers, "
        f"{len(story.readers)} readers of {sum(len(seen) for _, seen in story.readers)} events, "
        f"{crowd.breaks} broken connections, killed: {dict(Counter(story.deaths))}"
    )
    assert findings(story, ended, stored, runs, fleet.workers_killed) == []
    assert fleet.stop() == [0, 0, 0, 0]
