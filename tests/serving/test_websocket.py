"""The WebSocket: what is asked and answered on it, and that no event is missed or told twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from serving_support import ENGINES, until
from websocket_support import SUBPROTOCOL, theatre
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ropeway.serving import GatewayOptions
from ropeway.serving.websocket.session import MAX_SUBSCRIPTIONS

pytestmark = pytest.mark.parametrize("engine", ENGINES)

ALL = ["job.queued", "job.started", "output.delta", "output.delta", "job.succeeded"]


async def test_a_job_goes_all_the_way_on_one_socket(engine: str, tmp_path: Path) -> None:
    """Submit; the ack with the job comes first; then its events, the last with the final job."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        ack = await socket.ask("submit", job={"task": "greet", "input": {"name": "Ada"}})
        assert ack["type"] == "ack"
        assert ack["subscribed"] is True
        assert ack["job"]["state"] == "queued"
        assert "replayed" not in ack
        work = await t.hand.take()
        await t.hand.emit(work, ("output.delta", {"index": 0, "delta": "Hi"}))
        await t.hand.emit(work, ("output.delta", {"index": 1, "delta": " Ada"}))
        await t.hand.succeed(work, "Hi Ada")
        events = await socket.events_to_the_end()
        assert [event["type"] for event in events] == ALL
        assert {event["job_id"] for event in events} == {ack["job"]["id"]}
        assert events[-1]["data"]["output"] == "Hi Ada"
        assert await socket.hears_nothing()


async def test_it_is_the_same_log_from_every_event_on(engine: str, tmp_path: Path) -> None:
    """A client that comes back with the last id it saw is told all that came after, once, from wherever it was."""
    async with theatre(engine, tmp_path) as t:
        async with t.socket() as socket:
            job_id = await socket.submit()
            work = await t.hand.take()
            for n in range(5):
                await t.hand.emit(work, ("output.delta", {"index": n, "delta": str(n)}))
            whole = await socket.events(7)
        for seen, event in enumerate(whole, start=1):
            async with t.socket() as socket:
                ack = await socket.ask("subscribe", job_id=job_id, after=event["id"])
                assert ack["subscribed"] is True
                assert await socket.events(len(whole) - seen) == whole[seen:]
                assert await socket.hears_nothing()
        async with t.socket() as socket:
            await socket.ask("subscribe", job_id=job_id, after=whole[-1]["id"])
            await t.hand.succeed(work, "01234")
            assert [event["type"] for event in await socket.events_to_the_end()] == ["job.succeeded"]


async def test_a_log_at_its_end_is_said_to_be(engine: str, tmp_path: Path) -> None:
    """After the last event nothing follows, and the ack says so; from the beginning all of it follows."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_id = await socket.submit()
        await t.hand.succeed(await t.hand.take(), 1)
        last = (await socket.events_to_the_end())[-1]["id"]
        ack = await socket.ask("subscribe", job_id=job_id, after=last)
        assert (ack["subscribed"], ack["job"]["state"]) == (False, "succeeded")
        assert await socket.hears_nothing()
        assert (await socket.ask("subscribe", job_id=job_id))["subscribed"] is True
        assert len(await socket.events_to_the_end()) == 3


async def test_only_the_types_that_are_wanted_come(engine: str, tmp_path: Path) -> None:
    """On a submit as on a subscribe."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_id = await socket.submit(types=["output.delta"])
        work = await t.hand.take()
        await t.hand.emit(work, ("log", {"message": "x"}), ("output.delta", {"index": 0, "delta": "a"}))
        assert [event["type"] for event in await socket.events(1)] == ["output.delta"]
        await t.hand.succeed(work, "a")
        assert await socket.hears_nothing()
        await socket.ask("subscribe", job_id=job_id, types=["job.succeeded", "log"])
        assert [event["type"] for event in await socket.events(2)] == ["log", "job.succeeded"]


async def test_many_jobs_share_a_socket(engine: str, tmp_path: Path) -> None:
    """Each job's events come in their order, and none is another's."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        for _ in range(30):
            await socket.say("submit", job={"task": "free"})
        seen: dict[str, list[str]] = {}
        acks = 0
        works: list[Any] = []
        while acks < 30 or len(works) < 30 or any(events[-1:] != ["job.succeeded"] for events in seen.values()):
            message = await socket.hear()
            if message["type"] == "ack":
                acks += 1
                seen[message["job"]["id"]] = []
                works.append(await t.hand.take())
                await t.hand.emit(works[-1], ("output.delta", {"index": 0, "delta": works[-1].job_id}))
                await t.hand.succeed(works[-1], works[-1].job_id)
            else:
                event = message["event"]
                seen[event["job_id"]].append(event["type"])
                if event["type"] == "output.delta":
                    assert event["data"]["delta"] == event["job_id"]
        assert set(map(tuple, seen.values())) == {("job.queued", "job.started", "output.delta", "job.succeeded")}


async def test_a_job_is_followed_no_more_and_again(engine: str, tmp_path: Path) -> None:
    """Unsubscribe is harmless when repeated; what came meanwhile is told to who subscribes after its last event."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_id = await socket.submit()
        work = await t.hand.take()
        last = (await socket.events(2))[-1]["id"]
        for _ in range(2):
            assert (await socket.ask("unsubscribe", job_id=job_id))["subscribed"] is False
        await t.hand.emit(work, ("output.delta", {"index": 0, "delta": "a"}))
        assert await socket.hears_nothing()
        await socket.ask("subscribe", job_id=job_id, after=last)
        assert [event["type"] for event in await socket.events(1)] == ["output.delta"]


async def test_the_later_subscription_to_a_job_takes_the_place_of_the_earlier(engine: str, tmp_path: Path) -> None:
    """Nothing is told twice after the second ack."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_id = await socket.submit()
        await socket.events(1)
        ack = await socket.ask("subscribe", job_id=job_id)
        assert ack["subscribed"] is True
        await t.hand.succeed(await t.hand.take(), 1)
        assert [e["type"] for e in await socket.events_to_the_end()] == ["job.queued", "job.started", "job.succeeded"]
        assert await socket.hears_nothing()


async def test_a_submit_may_be_for_the_job_alone(engine: str, tmp_path: Path) -> None:
    """`subscribe: false`: an ack, and no event."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        ack = await socket.ask("submit", job={"task": "free"}, subscribe=False)
        assert ack["subscribed"] is False
        await t.hand.succeed(await t.hand.take(), 1)
        assert await socket.hears_nothing()


async def test_a_submit_that_is_sent_again_is_one_job(engine: str, tmp_path: Path) -> None:
    """Under its idempotency key, on another socket: the same job, with its events from the beginning."""
    async with theatre(engine, tmp_path) as t:
        async with t.socket() as socket:
            first = await socket.submit(idempotency_key="turn-1")
        async with t.socket() as socket:
            ack = await socket.ask("submit", job={"task": "free"}, idempotency_key="turn-1")
            assert (ack["job"]["id"], ack["replayed"]) == (first, True)
            assert [event["type"] for event in await socket.events(1)] == ["job.queued"]
            other = await socket.refused("submit", job={"task": "free", "input": {"a": 1}}, idempotency_key="turn-1")
            assert other == "idempotency_key_reused"
            assert await socket.refused("submit", job={"task": "free"}, idempotency_key="") == "invalid_request"


async def test_a_job_is_cancelled(engine: str, tmp_path: Path) -> None:
    """At once while it waits, asked to stop while it runs; the end comes as an event."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        waiting = await socket.submit()
        await socket.events(1)
        ref = await socket.say("cancel", job_id=waiting, reason="no more")
        heard = [await socket.hear(), await socket.hear()]
        (ack,) = [message for message in heard if message["type"] == "ack"]
        (event,) = [message["event"] for message in heard if message["type"] == "event"]
        assert (ack["ref"], ack["job"]["state"], ack["job"]["cancel_reason"]) == (ref, "cancelled", "no more")
        assert event["type"] == "job.cancelled"
        running = await socket.submit()
        work = await t.hand.take()
        await socket.events(2)
        ack = await socket.ask("cancel", job_id=running)
        assert (ack["job"]["state"], ack["job"]["cancel_requested_at"] is None) == ("running", False)
        await t.hand.succeed(work, 1)
        assert [event["type"] for event in await socket.events_to_the_end()][-1] == "job.cancelled"


@pytest.mark.parametrize("command", ["subscribe", "cancel", "input"])
@pytest.mark.parametrize("job_id", ["job_0", "../x", "", "x" * 5000, "a\nb"])
async def test_a_job_that_is_not_there_is_told_as_on_the_routes(
    engine: str, tmp_path: Path, command: str, job_id: str
) -> None:
    """404 in the problem; and what can be no id is as one that nobody has."""
    more = {"data": 1} if command == "input" else {}
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        assert await socket.refused(command, job_id=job_id, **more) == "job_not_found"


async def test_a_deleted_job_ends_its_subscription(engine: str, tmp_path: Path) -> None:
    """An error names the job and what was asked; the socket goes on."""
    async with theatre(engine, tmp_path, options=GatewayOptions(recheck_s=0.05)) as t, t.socket() as socket:
        ack = await socket.ask("submit", job={"task": "free"}, types=["log"])
        job_id = ack["job"]["id"]

        async def read(tenant: str, read_id: str, *_: Any) -> None:
            assert (tenant, read_id) == ("default", job_id)

        t.engine.read = read  # type: ignore[method-assign, assignment]  # as if it had gone between two looks
        answer = await socket.hear()
        assert (answer["type"], answer["ref"], answer["job_id"]) == ("error", ack["ref"], job_id)
        assert answer["problem"]["code"] == "job_not_found"
        assert await socket.hears_nothing()


BAD = [
    ("x", "invalid_request", None),
    ("[]", "invalid_request", None),
    ('"submit"', "invalid_request", None),
    ("{}", "invalid_request", None),
    ('{"type":"nope","ref":7}', "invalid_request", 7),
    ('{"type":"ping","ref":7,"extra":1}', "invalid_request", 7),
    ('{"type":"ping","ref":1.5}', "invalid_request", None),
    ('{"type":"ping","ref":"a","ref":"b"}', "invalid_request", "b"),
    ('{"type":"subscribe","ref":7}', "invalid_request", 7),
    ('{"type":"subscribe","ref":7,"job_id":5}', "invalid_request", 7),
    ('{"type":"subscribe","ref":7,"job_id":"job_0","after":"x"}', "job_not_found", 7),
    ('{"type":"cancel","ref":7,"job_id":"job_0","reason":"\\u0000"}', "invalid_request", 7),
    ('{"type":"submit","ref":7}', "invalid_request", 7),
    ('{"type":"submit","ref":7,"job":5}', "invalid_request", 7),
    ('{"type":"submit","ref":7,"job":{"task":"nobody"}}', "task_not_found", 7),
    ('{"type":"submit","ref":7,"job":{"task":"greet","input":{}}}', "input_invalid", 7),
    ('{"type":"submit","ref":7,"job":{"task":"free","input":{"a":1,"a":2}}}', "input_invalid", 7),
    ('{"type":"submit","ref":7,"job":{"task":"free","colour":1}}', "invalid_request", 7),
    ('{"type":"submit","ref":7,"job":' + "[" * 5000 + "]" * 5000 + "}", "invalid_request", None),
    ('{"type":"ping","ref":"\\ud800"}', "invalid_request", None),
    ('{"type":"ping","ref":"' + "r" * 300 + '"}', "invalid_request", "r" * 255),
]


async def test_what_cannot_be_read_is_answered_and_the_socket_goes_on(engine: str, tmp_path: Path) -> None:
    """With the problem, and with the `ref` where that can be made out."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        for text, code, ref in BAD:
            await socket.say_text(text)
            answer = await socket.hear()
            assert (answer["type"], answer["problem"]["code"], answer["ref"]) == ("error", code, ref), text
        assert await socket.hears_nothing()


async def test_a_bad_cursor_is_told(engine: str, tmp_path: Path) -> None:
    """`after` is an event's id."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_id = await socket.submit(subscribe=False)
        for after in ("x", "1-", f"{1 << 70}-1"):
            assert await socket.refused("subscribe", job_id=job_id, after=after) == "invalid_request"


async def test_a_full_queue_is_told_with_when_to_come_again(engine: str, tmp_path: Path) -> None:
    """As on the route: the problem, and seconds in `retry_after`."""
    async with theatre(engine, tmp_path) as t, t.http() as http, t.socket() as socket:
        await http.post("/v1/jobs", json={"task": "free"})
        await t.engine.set_queue([_limit(1)])
        answer = await socket.ask("submit", job={"task": "free"})
        assert answer["problem"]["code"] == "queue_full"
        assert answer["problem"]["retryable"] is True
        assert answer["retry_after"] >= 1


def _limit(depth: int) -> Any:
    from ropeway.domain.queue import QueueChange

    return QueueChange("hall", max_depth=depth)


async def test_a_socket_follows_so_many_jobs(engine: str, tmp_path: Path) -> None:
    """The next is refused; one that is followed already may be followed from elsewhere."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        job_ids = [await socket.submit(types=["log"]) for _ in range(MAX_SUBSCRIPTIONS)]
        assert await socket.refused("submit", job={"task": "free"}) == "too_many_subscriptions"
        more = await socket.ask("submit", job={"task": "free"}, subscribe=False)
        assert await socket.refused("subscribe", job_id=more["job"]["id"]) == "too_many_subscriptions"
        assert (await socket.ask("subscribe", job_id=job_ids[0], types=["log"]))["subscribed"] is True
        await socket.ask("unsubscribe", job_id=job_ids[0])
        assert (await socket.ask("subscribe", job_id=more["job"]["id"], types=["log"]))["subscribed"] is True


async def test_a_drain_asks_clients_to_come_back(engine: str, tmp_path: Path) -> None:
    """`reconnect` with when, and 1012; the server stops without waiting for anybody."""
    async with theatre(engine, tmp_path) as t, t.socket() as socket:
        await socket.submit(job={"on_disconnect": "cancel"})
        await socket.events(1)
        stopping = asyncio.create_task(t.server.stop())
        told = await socket.hear()
        assert told["type"] == "reconnect"
        assert 0 < told["after_ms"] < 5000
        assert await socket.closed() == 1012
        await stopping
        page = await t.engine.find(_all_jobs())
        assert [job.state.value for job in page.jobs] == ["queued"], "a drain is no departure"


def _all_jobs() -> Any:
    from ropeway.domain.job import JobQuery

    return JobQuery("default")


async def test_a_client_that_leaves_takes_with_it_what_it_said_it_would(engine: str, tmp_path: Path) -> None:
    """`on_disconnect: cancel` on a job that it submitted and follows; others go on."""
    async with theatre(engine, tmp_path) as t:
        async with t.socket() as socket:
            goes = await socket.submit(job={"on_disconnect": "cancel"})
            await socket.events(1)
            stays = await socket.submit(job={"on_disconnect": "continue"})
        async with t.http() as http:
            assert (await http.get(f"/v1/jobs/{goes}?wait=10")).json()["state"] == "cancelled"
            assert (await http.get(f"/v1/jobs/{stays}")).json()["state"] == "queued"


async def test_the_gateway_knows_when_a_client_has_left(engine: str, tmp_path: Path) -> None:
    """Its place is free, and nothing listens for it any more."""
    async with theatre(engine, tmp_path) as t:
        async with t.socket() as socket:
            await socket.submit()
            assert t.gateway.waiting == 1
        await until(lambda: t.gateway.waiting == 0)


async def test_there_is_room_for_so_many_sockets(engine: str, tmp_path: Path) -> None:
    """One too many is told so, and closed with 4429: a page cannot see the status of a handshake."""
    async with theatre(engine, tmp_path, GatewayOptions(max_streams=1)) as t, t.socket() as first:
        async with t.socket() as second:
            told = await second.hear()
            assert (told["type"], told["problem"]["code"]) == ("error", "too_many_streams")
            assert await second.closed() == 4429
        assert await first.hears_nothing()


@pytest.mark.parametrize(
    ("path", "arguments", "status", "code"),
    [
        ("/v1/ws", {"subprotocols": None}, 400, "invalid_request"),
        ("/v1/ws", {"subprotocols": ["ropeway.v9"]}, 400, "invalid_request"),
        ("/v1/ws", {"origin": "https://evil.test"}, 403, "forbidden"),
        ("/v1/ws", {"origin": "null"}, 403, "forbidden"),
        ("/v1/jobs", {}, 404, "not_found"),
    ],
)
async def test_a_handshake_is_refused_as_http(
    engine: str, tmp_path: Path, path: str, arguments: dict[str, Any], status: int, code: str
) -> None:
    """With a problem: another page's, another protocol's, another path's."""
    async with theatre(engine, tmp_path) as t:
        url = t.url.replace("/v1/ws", path)
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, **{"subprotocols": [SUBPROTOCOL], **arguments}):
                pass
        answer = refused.value.response
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert msgspec.json.decode(bytes(answer.body or b""))["code"] == code


async def test_a_page_of_the_gateways_own_origin_may(engine: str, tmp_path: Path) -> None:
    """And one that was allowed by name."""
    options = GatewayOptions(allowed_origins=("https://app.test",))
    async with theatre(engine, tmp_path, options) as t:
        for origin in (t.server.url, "https://app.test"):
            async with t.socket(origin=origin) as socket:
                assert await socket.hears_nothing()


async def test_a_plain_get_is_told_to_upgrade(engine: str, tmp_path: Path) -> None:
    """Who opens it in a browser learns what it is."""
    async with theatre(engine, tmp_path) as t, t.http() as http:
        answer = await http.get("/v1/ws")
        assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
