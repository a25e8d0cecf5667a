"""kill -9 of a real server at random points, under load: nothing that was answered 202 is lost or committed twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from server import Server

KILLS = 50
SUBMITTERS = 8
SEED = 20_261
VICTIMS = ("everything", "everything", "everything", "worker", "gateway", "supervisor")


class Clients:
    """Submitters that know what they were promised: the key of every request, and the job that a 202 named for it."""

    def __init__(self, url: str) -> None:
        self.http = httpx.AsyncClient(base_url=url, timeout=60)
        self.asked: set[str] = set()
        self.promised: dict[str, str] = {}
        self.results: dict[str, Any] = {}
        self._open: set[str] = set()  # asked, and no answer: it may have happened
        self._milestone = 0
        self._reached = asyncio.Event()

    async def submit_until(self, enough: int) -> None:
        """Submit from several tasks at once until `enough` more were promised, or the server is gone."""
        target = len(self.promised) + enough
        await asyncio.gather(*(self._submit_on(target) for _ in range(SUBMITTERS)))

    async def _submit_on(self, target: int) -> None:
        while len(self.promised) < target:
            if not await self.submit(f"key-{len(self.asked)}"):
                return

    async def promises(self, count: int) -> None:
        """Until so many submits were answered."""
        self._milestone = count
        self._reached.clear()
        if len(self.promised) < count:
            await self._reached.wait()

    async def submit(self, key: str) -> bool:
        """One submit. Whether the server answered."""
        self.asked.add(key)
        self._open.add(key)
        body = {"task": "spell", "input": {"word": word_of(key)}, "metadata": {"key": key}}
        try:
            reply = await self.http.post("/v1/jobs", json=body, headers={"idempotency-key": key})
        except httpx.TransportError:
            return False
        if reply.status_code == 503:  # it says so itself: the engine was going
            return False
        assert reply.status_code in (200, 202), reply.text
        job_id = reply.json()["id"]
        assert self.promised.setdefault(key, job_id) == job_id, "a key was given two jobs"
        self._open.discard(key)
        if len(self.promised) >= self._milestone:
            self._reached.set()
        return True

    async def settle(self) -> None:
        """Ask again for everything that was left open: the same key gets the one job, made then or now."""
        for key in sorted(self._open):
            assert await self.submit(key)

    async def look(self, count: int) -> None:
        """Note the results of some jobs: what a client was told once must hold for ever."""
        for job_id in list(self.promised.values())[-count:]:
            try:
                job = (await self.http.get(f"/v1/jobs/{job_id}")).json()
            except httpx.TransportError:
                return
            if job["state"] == "succeeded":
                self.note(job)

    def note(self, job: dict[str, Any]) -> None:
        told = (job["output"], job["last_event_id"], job["finished_at"])
        assert self.results.setdefault(job["id"], told) == told, f"{job['id']} was committed twice"


def word_of(key: str) -> str:
    return f"<{key}>"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.stop()


async def die_at_random(server: Server, clients: Clients, dice: random.Random) -> str:
    """Load the server, and kill some of it after a random number of promises and a random while."""
    enough = dice.randint(1, 40)
    load = asyncio.create_task(clients.submit_until(enough + 4 * SUBMITTERS))
    milestone = asyncio.create_task(clients.promises(len(clients.promised) + enough))
    await asyncio.wait([milestone, load], return_when=asyncio.FIRST_COMPLETED)
    milestone.cancel()
    for _ in range(dice.randrange(50)):  # not a wait for anything: the random point itself
        await asyncio.sleep(0)
    victim = dice.choice(VICTIMS)
    await asyncio.to_thread(server.kill, victim)
    if victim == "worker":  # the gateway goes on taking jobs
        load.cancel()
    await asyncio.wait([load])
    if not load.cancelled():
        load.result()
    return victim


async def check_all(clients: Clients) -> None:
    """Every promise was kept; a few at a time, since an HTTP client with thousands waiting does little else."""
    keys = iter(tuple(clients.promised))

    async def check_some() -> None:
        for key in keys:
            await check_end(clients, key)

    await asyncio.gather(*(check_some() for _ in range(SUBMITTERS)))


async def check_end(clients: Clients, key: str) -> None:
    """The job that was promised for this key ends with its own result, the one that was told before if any was."""
    job_id = clients.promised[key]
    job = (await clients.http.get(f"/v1/jobs/{job_id}", params={"wait": 60}, timeout=90)).json()
    assert (job["state"], job["output"]) == ("succeeded", word_of(key))
    clients.note(job)
    await check_log(clients, job_id)


async def check_log(clients: Clients, job_id: str) -> None:
    """The job's event log has no gap and no repeat, and exactly one end, which is its last entry."""
    reply = await clients.http.get(f"/v1/jobs/{job_id}/events", headers={"accept": "application/x-ndjson"})
    events = [json.loads(line) for line in reply.text.splitlines()]
    cursors = [tuple(map(int, event["id"].split("-"))) for event in events]
    assert cursors == sorted(set(cursors))
    for (epoch, n), (next_epoch, next_n) in itertools.pairwise(cursors):
        assert next_n == (n + 1 if next_epoch == epoch else 0), f"{job_id}: a gap after {epoch}-{n}"
    ends = [event["type"] for event in events if event["type"] in ("job.succeeded", "job.failed", "job.cancelled")]
    assert ends == ["job.succeeded"]
    assert events[-1]["type"] == "job.succeeded"


async def test_kill_nine_at_fifty_random_points_loses_nothing(server: Server) -> None:
    """Every job that was answered 202 ends, once, with its own result; the file is whole after fifty kills."""
    dice = random.Random(SEED)
    clients = Clients(server.url)
    killed: Counter[str] = Counter()
    server.start()
    for _ in range(KILLS):
        victim = await die_at_random(server, clients, dice)
        killed[victim] += 1
        if victim in ("everything", "supervisor"):
            await asyncio.to_thread(server.start)
        else:
            await asyncio.to_thread(server.await_ready)
        await clients.look(20)
    await clients.settle()

    await check_all(clients)
    await clients.http.aclose()
    server.stop()

    assert sum(killed.values()) == KILLS
    assert server.runs_seen >= len(clients.promised)
    with apsw.Connection(str(server.file)) as file:
        assert file.execute("PRAGMA integrity_check").get == "ok"
        assert file.execute("SELECT count(*) FROM jobs").get == len(clients.asked) == len(clients.promised)
    print(f"{len(clients.promised)} jobs promised, {server.runs_seen} runs, killed: {dict(killed)}")
