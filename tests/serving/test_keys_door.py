"""The door: when a key is asked for, how it may be shown, how soon a revoked one is dead, and what is written of it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest
from keys_support import ALL, bearer, keyed, problem
from serving_support import QUICK, stage, until

from ropeway.client.keyring import KeyRing
from ropeway.domain.caller import Scope
from ropeway.domain.errors import Forbidden, RateLimited, Unauthenticated
from ropeway.domain.keys import make_key, masked, parse_key
from ropeway.domain.record import Record, RecordKey
from ropeway.engines.memory import MemoryEngine
from ropeway.serving import Gateway, GatewayOptions
from ropeway.testing import ManualClock
from ropeway.testing.faults import FaultyEngine

# -- when one is asked for


async def test_no_key_is_asked_for_until_there_is_one() -> None:
    """Whoever reaches a gateway without keys may do everything; from the first key on, nothing without one."""
    async with keyed(locked=False) as k:
        assert (await k.ask("GET", "/v1/jobs")).status_code == 200
        token = await k.key()
        k.later()
        assert problem(await k.ask("GET", "/v1/jobs")) == (401, "unauthenticated")
        assert (await k.ask("GET", "/v1/jobs", token)).status_code == 200
        await k.ring.revoke(token.split("_")[1])
        k.later()
        assert (await k.ask("GET", "/v1/jobs")).status_code == 401, "also when the last one is gone"


async def test_a_key_that_nobody_asks_for_is_no_mistake() -> None:
    """OpenAI's SDKs always send one."""
    async with keyed(locked=False) as k:
        assert (await k.ask("GET", "/v1/jobs", "sk-anything")).status_code == 200


async def test_a_gateway_that_others_reach_asks_before_there_is_a_key() -> None:
    """The command line says so for an address that others can reach."""
    async with stage(options=GatewayOptions(allowed_hosts=("gateway.test",), requires_key=True)) as s:
        assert (await s.http.get("/v1/jobs")).status_code == 401
        assert (await s.http.get("/livez")).status_code == 200


async def test_the_door_is_not_opened_by_an_engine_that_does_not_answer() -> None:
    """503, with or without a key, and never a look at what was true some time ago."""
    down = False

    def wrap(engine: Any) -> Any:
        return FaultyEngine(engine, lambda method, nth: "before" if down and method in ("scan", "fetch") else None)

    async with keyed(wrap=wrap, locked=False) as k:
        assert (await k.ask("GET", "/v1/jobs")).status_code == 200
        down = True
        k.later()
        assert problem(await k.ask("GET", "/v1/jobs")) == (503, "engine_unavailable")
        down = False
        token = await k.key()
        k.later()
        assert (await k.ask("GET", "/v1/jobs", token)).status_code == 200
        down = True
        k.later()
        assert problem(await k.ask("GET", "/v1/jobs", token)) == (503, "engine_unavailable")
        assert (await k.ask("GET", "/v1/jobs")).status_code == 401


async def test_the_first_key_over_http_can_make_others() -> None:
    """Without the scope `admin` it would be the last one, so it is refused."""
    async with keyed(locked=False) as k:
        refused = await k.ask("POST", "/v1/keys", json={"name": "web"})
        assert (problem(refused), refused.json()["error"]["param"]) == ((400, "invalid_request"), "scopes")
        made = await k.ask("POST", "/v1/keys", json={"name": "ops", "scopes": ["admin"]})
        assert made.status_code == 201
        assert (await k.ask("GET", "/v1/keys")).status_code == 401, "at once, and not when it is looked up again"
        other = await k.ask("POST", "/v1/keys", made.json()["key"], json={"name": "web"})
        assert other.status_code == 201
        assert other.json()["scopes"] == ["files", "jobs:cancel", "jobs:read", "jobs:write"]


# -- how it is shown


async def test_a_refusal_says_what_is_asked_for() -> None:
    """`WWW-Authenticate` as RFC 6750 has it, and a sentence that tells the cases apart."""
    async with keyed() as k:
        none = await k.ask("GET", "/v1/jobs")
        assert none.headers["www-authenticate"] == 'Bearer realm="ropeway"'
        assert none.json()["error"]["type"] == "authentication_error"
        assert none.headers["x-should-retry"] == "false"
        lacking = await k.ask("GET", "/v1/jobs", await k.key([Scope.write]))
        assert 'error="insufficient_scope", scope="jobs:read"' in lacking.headers["www-authenticate"]
        basic = await k.ask("GET", "/v1/jobs", headers={"authorization": "Basic eDp5"})
        assert "Bearer rw_" in basic.json()["detail"]
        lower = await k.ask("GET", "/v1/jobs", headers={"authorization": f"bearer {await k.key()}"})
        assert lower.status_code == 200


async def test_a_key_in_an_address_is_refused() -> None:
    """It would be in the log of every proxy on the way, and in the browser's history."""
    async with keyed() as k:
        token = await k.key()
        answer = await k.ask("GET", f"/v1/jobs?token={token}")
        assert problem(answer) == (401, "unauthenticated")
        assert token not in answer.text


async def test_a_socket_shows_its_key_as_a_protocol() -> None:
    """A page's WebSocket can set no header."""
    async with keyed() as k:
        token = await k.key()
        door = k.stage.gateway._door
        scope = {"type": "websocket", "path": "/v1/ws", "subprotocols": ["ropeway.v1", f"bearer.{token}"]}
        caller = await door.admit(scope, {})
        assert (caller.tenant, caller.scopes, caller.key_id) == ("acme", ALL, token.split("_")[1])
        with pytest.raises(Unauthenticated):
            await door.admit({**scope, "subprotocols": ["ropeway.v1"]}, {})


async def test_a_typo_is_told_without_asking_the_store() -> None:
    """The checksum is wrong; and a stranger's made-up ids cost one question each, however often they come."""
    faulty: list[FaultyEngine] = []

    def wrap(engine: Any) -> Any:
        faulty.append(FaultyEngine(engine, lambda method, nth: None))
        return faulty[0]

    async with keyed(wrap=wrap) as k:
        token = await k.key()
        await k.ask("GET", "/v1/jobs")
        before = faulty[0].calls["fetch"]
        for n in range(4, len(token)):
            typo = token[:n] + ("x" if token[n] != "x" else "y") + token[n + 1 :]
            assert (await k.ask("GET", "/v1/jobs", typo)).status_code == 401
        assert faulty[0].calls["fetch"] == before
        unknown = make_key(lambda size: bytes(size)).token
        for _ in range(20):
            assert (await k.ask("GET", "/v1/jobs", unknown)).status_code == 401
        assert faulty[0].calls["fetch"] == before + 1


async def test_a_thousand_requests_ask_twice() -> None:
    """A key's record and its tenant's are good for half a second, and asked for once by all who wait for them."""
    faulty: list[FaultyEngine] = []

    def wrap(engine: Any) -> Any:
        faulty.append(FaultyEngine(engine, lambda method, nth: None))
        return faulty[0]

    async with keyed(wrap=wrap) as k:
        token = await k.key()
        answers = await asyncio.gather(*(k.ask("GET", "/v1/jobs/none", token) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {404}
        assert faulty[0].calls["fetch"] - faulty[0].calls["put"] * 3 <= 2, "what notes the use of it apart"


# -- how soon it is over


async def test_a_revoked_key_is_dead_in_a_second_on_all_gateways() -> None:
    """On the one that revoked it and on another process' that knew it: what it remembers is half a second old."""
    async with keyed() as k:
        token, admin = await k.key(), await k.key()
        other = Gateway(k.stage.engine, QUICK, clock=k.clock)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://gateway.test") as http:
            assert (await http.get("/v1/jobs", headers=bearer(token))).status_code == 200
            revoked = await k.ask("DELETE", f"/v1/keys/{token.split('_')[1]}", admin)
            assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
            k.later(0.999)
            assert (await http.get("/v1/jobs", headers=bearer(token))).status_code == 401
            assert (await k.ask("GET", "/v1/jobs", token)).status_code == 401
        await other.stop()


@pytest.mark.parametrize("path", ["/v1/jobs/{job}/events", "/v1/events", "/v1/jobs/{job}?wait=60"])
async def test_what_is_open_with_a_revoked_key_is_closed(path: str) -> None:
    """A stream ends without a word, and a long-poll is answered 401; others' go on."""
    async with keyed() as k:
        token, other = await k.key(), await k.key()
        job = await k.submit(token)
        where, _, query = path.format(job=job).partition("?")
        async with (
            k.stage.call("GET", where, headers=bearer(token), query=query) as call,
            k.stage.call("GET", f"/v1/jobs/{job}/events", headers=bearer(other)) as stays,
        ):
            await until(lambda: k.stage.waiting == 2)
            await k.ring.revoke(token.split("_")[1])
            await k.stage.gateway._door.stays.look()
            await call.until(lambda _: False)
            assert call.status == (401 if "wait" in path else 200)
            assert b"reconnect" not in call.received
            assert not stays.ended


async def test_a_stream_ends_when_its_key_expires() -> None:
    """As if it were revoked then."""
    async with keyed() as k:
        token = await k.key(ttl_s=60)
        async with k.stage.call("GET", "/v1/events", headers=bearer(token)) as call:
            await call.until(lambda _: call.status != 0)
            await k.stage.gateway._door.stays.look()
            assert not call.ended
            k.later(61)
            await k.stage.gateway._door.stays.look()
            await call.until(lambda _: False)


async def test_open_streams_are_looked_after_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice a second in production; without keyed streams nothing runs."""
    monkeypatch.setattr("ropeway.serving.stays.LOOK_INTERVAL_S", 0.001)
    async with keyed() as k:
        token = await k.key()
        async with k.stage.call("GET", "/v1/events", headers=bearer(token)) as call:
            await call.until(lambda _: call.status != 0)
            await k.ring.revoke(token.split("_")[1])
            await call.until(lambda _: False)
        looking = k.stage.gateway._door.stays._looking
        assert looking is not None
        async with asyncio.timeout(10):
            await looking


async def test_rotation_overlaps() -> None:
    """The new key can what the old one could; both work for a while, then the new one alone."""
    async with keyed() as k:
        old = await k.key([Scope.read], max_queued=5)
        admin = await k.key()
        made = await k.ask("POST", f"/v1/keys/{old.split('_')[1]}/rotate", admin, json={"overlap": 60})
        new = made.json()
        assert (new["scopes"], new["limits"], new["tenant"]) == (["jobs:read"], {"max_queued": 5}, "acme")
        k.later()
        assert {(await k.ask("GET", "/v1/jobs", token)).status_code for token in (old, new["key"])} == {200}
        k.later(60)
        assert [(await k.ask("GET", "/v1/jobs", token)).status_code for token in (old, new["key"])] == [401, 200]
        again = await k.ask("POST", f"/v1/keys/{old.split('_')[1]}/rotate", admin)
        assert problem(again) == (400, "invalid_request")


# -- what is known of it


async def test_keys_are_listed_without_what_opens() -> None:
    """Page by page, with when each was used last; the digest stays inside."""
    async with keyed(locked=False) as k:
        tokens = sorted([await k.key(tenant=f"t{n}") for n in range(5)])
        admin = tokens[0]
        first = (await k.ask("GET", "/v1/keys?limit=3", admin)).json()
        rest = (await k.ask("GET", f"/v1/keys?limit=3&cursor={first['next_cursor']}", admin)).json()
        listed = [*first["data"], *rest["data"]]
        assert [key["id"] for key in listed] == sorted(token.split("_")[1] for token in tokens)
        assert (first["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
        assert not {"key", "digest"} & set(listed[0])

        await asyncio.gather(*k.stage.gateway._door._noting.values())  # nobody else waits for it
        one = await k.ask("GET", f"/v1/keys/{admin.split('_')[1]}", admin)
        assert one.json()["last_used_at"] is not None
        for wrong in ("?cursor=../x", "?limit=0"):
            assert (await k.ask("GET", f"/v1/keys{wrong}", admin)).status_code == 400
        for method, path in (("GET", "/v1/keys/none"), ("DELETE", "/v1/keys/00000000000")):
            assert problem(await k.ask(method, path, admin)) == (404, "key_not_found")


async def test_a_use_that_is_noted_does_not_undo_a_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both change the record; the second one sees that it was changed, also between its look and its word."""
    engine = MemoryEngine()
    await engine.open()
    ring = KeyRing(engine, ManualClock())
    key, _ = await ring.create("web")
    look = engine.fetch

    async def look_too_early(keys: Sequence[RecordKey]) -> list[Record | None]:
        found = await look(keys)
        monkeypatch.undo()
        await ring.revoke(key.id)
        return found

    monkeypatch.setattr(engine, "fetch", look_too_early)
    await ring.used(key.id, 5)
    revoked = await ring.get(key.id)
    assert (revoked.revoked_at_ms is not None, revoked.last_used_at_ms) == (True, None)
    assert (await ring.revoke(key.id)) == revoked, "to revoke twice is harmless"
    await ring.used(key.id, 5)
    assert (await ring.get(key.id)) == msgspec.structs.replace(revoked, last_used_at_ms=5)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"name": ""}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes[0]"),
        ({"name": "x", "tenant": "a/b"}, "tenant"),
        ({"name": "x", "ttl": 0}, "ttl"),
        ({"name": "x", "limits": {"max_queued": 0}}, "limits.max_queued"),
        ({"name": "x", "limits": {"max_runing": 1}}, None),
        ({"name": "x", "id": "mine"}, "id"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(body: Any, param: str | None) -> None:
    """400, with the field; nothing is made."""
    async with keyed() as k:
        admin = await k.key()
        answer = await k.ask("POST", "/v1/keys", admin, json=body)
        assert problem(answer) == (400, "invalid_request")
        assert param in (None, answer.json()["error"]["param"])
        assert len([key async for key in k.ring.all()]) == 2


async def test_changes_of_keys_are_written_down(caplog: pytest.LogCaptureFixture) -> None:
    """One line each: what, and by which key. No secret is in any line of any log."""
    caplog.set_level(logging.DEBUG)
    async with keyed() as k:
        admin = await k.key()
        made = (await k.ask("POST", "/v1/keys", admin, json={"name": "web"})).json()
        await k.ask("POST", f"/v1/keys/{made['id']}/rotate", admin)
        await k.ask("DELETE", f"/v1/keys/{made['id']}", admin)
        await k.ask("PUT", "/v1/tenants/acme", admin, json={"max_queued": 5})
        lines = [record.getMessage() for record in caplog.records if record.name == "ropeway.audit"]
        assert [line.split(" ")[2].strip(",") for line in lines] == ["created", "created", "revoked", "tenant"]
        assert all(f"by key {admin.split('_')[1]}" in line for line in lines)
        secrets = [token.split("_")[2] for token in (admin, made["key"])]
        assert not any(secret in caplog.text for secret in secrets)


def test_what_is_written_of_a_key_has_no_secret() -> None:
    """In logs, in representations, and after the checksum was cut off."""
    made = make_key(lambda size: bytes(range(size)))
    shown = parse_key(made.token)
    assert shown is not None
    secret = made.token.split("_")[2]
    for text in (repr(made), repr(shown), masked(f"Bearer {made.token}"), masked(f"GET /x?token=rwt_{secret}.abc")):
        assert secret not in text
        assert secret[:10] not in text
    assert made.id in masked(made.token)


def test_a_key_has_room_that_nobody_can_guess() -> None:
    """160 bits of secret, an id apart from it, and a checksum over both that finds every single wrong character."""
    made = make_key(lambda size: b"\xff" * size)
    assert parse_key(made.token) is not None
    assert 62**27 > 2**160 > 62**26
    assert len({make_key(os.urandom).token for _ in range(100)}) == 100
    for n, char in enumerate(made.token):
        for other in ("A", "z", "_", " "):
            assert other == char or parse_key(made.token[:n] + other + made.token[n + 1 :]) is None
    for wrong in ("", "rw_", made.token + "x", made.token[:-1], "RW" + made.token[2:], "ř" * 48):
        assert parse_key(wrong) is None


async def test_callers_are_told_apart_by_their_errors() -> None:
    """For those who call the door from elsewhere: a socket closes with another code for each."""
    assert not issubclass(Forbidden, Unauthenticated)
    assert RateLimited.retryable
    assert not Unauthenticated.retryable
