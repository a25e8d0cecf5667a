"""`ropeway keys`, and what a key changes: which addresses may be served, and what commands must show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli_process import APPLICATION, Process
from cli_support import lines_of, redis_url, run, url_in

from ropeway.cli.exits import Exit
from ropeway.cli.network import check_bind, warn_if_open
from ropeway.client import Client, SyncClient
from ropeway.client.keyring import KeyRing
from ropeway.client.keys import KeyLimits
from ropeway.config import ServerSettings
from ropeway.domain.errors import Forbidden, InvalidRequest, KeyNotFound, RateLimited, Unauthenticated
from ropeway.domain.keys import parse_key
from ropeway.engines.memory import MemoryEngine
from servers import until


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "served.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROPEWAY_KEY", raising=False)
    return tmp_path


@pytest.fixture(name="up")
def make_up(folder: Path) -> Iterator[Process]:
    """`ropeway up` on a file."""
    process = Process(folder, "up", "served:app", "--port", "0")
    try:
        yield process
    finally:
        process.close()


def created(*arguments: str) -> str:
    """The key that `ropeway keys create` writes."""
    result = run("keys", "create", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def id_of(key: str) -> str:
    return key.split("_")[1]


# -- on an engine


def test_a_key_is_shown_once_and_alone(folder: Path) -> None:
    """On stdout, so that it can be caught in a variable; what to know of it on stderr. The store is made if need be."""
    result = run("keys", "create", "web", "--tenant", "acme", "--days", "30", "--requests-per-min", "60")
    key = result.stdout.strip()
    assert result.exit_code == 0
    assert parse_key(key) is not None
    assert key not in result.stderr
    assert id_of(key) in result.stderr
    assert f"audit: key {id_of(key)} created for 'web' of tenant acme with files" in result.stderr
    assert ", on the engine itself" in result.stderr
    (told,) = lines_of(run("keys", "list"))
    assert (told["id"], told["name"], told["tenant"], told["state"]) == (id_of(key), "web", "acme", "live")
    assert told["scopes"] == ["files", "jobs:cancel", "jobs:read", "jobs:write"]
    assert told["limits"] == {"requests_per_min": 60.0}
    assert told["expires_at"] > told["created_at"]
    assert key.split("_")[2] not in run("keys", "list", "--text").stdout


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_life_of_a_key(folder: Path, store: str) -> None:
    """Made, listed by tenant, rotated with an overlap, revoked; told as lines of JSON or as text."""
    url = url_in(folder) if store == "sqlite" else redis_url()
    old = created("ops", "--scopes", "admin,jobs:read", "--engine", url)
    created("web", "--tenant", "acme", "--engine", url)
    assert [key["name"] for key in lines_of(run("keys", "list", "--tenant", "acme", "--engine", url))] == ["web"]
    (new,) = lines_of(run("keys", "rotate", id_of(old), "--overlap", "60", "--json", "--engine", url))
    assert (new["scopes"], parse_key(new["key"]) is not None) == (["admin", "jobs:read"], True)
    assert f"{id_of(old)} (ops) is revoked" in run("keys", "revoke", id_of(old), "--text", "--engine", url).stdout
    states = {key["id"]: key["state"] for key in lines_of(run("keys", "list", "--engine", url))}
    assert (states[id_of(old)], states[new["id"]]) == ("revoked", "live")
    limited = run("keys", "limit", "acme", "--max-queued", "5", "--tasks", "greet,count", "--text", "--engine", url)
    assert limited.stdout.strip() == "acme: max_queued=5 tasks=greet,count"
    assert run("keys", "limit", "acme", "--text", "--engine", url).stdout.strip() == "acme: no limits"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "web", "--scopes", "root"), Exit.usage, "scopes are jobs:write"),
        (("create", ""), Exit.usage, "printable"),
        (("create", "web", "--tenant", "a b"), Exit.usage, "tenant name"),
        (("create", "web", "--days", "-1"), Exit.usage, "ttl"),
        (("create", "web", "--max-queued", "0"), Exit.usage, "max_queued"),
        (("create", "web", "--max-priority", "urgent"), Exit.usage, "max_priority"),
        (("revoke", "00000000000"), Exit.not_found, "no key"),
        (("rotate", "../x"), Exit.not_found, "no key"),
        (("list", "--engine", "sqlite:nowhere.db"), Exit.usage, "nowhere.db"),
        (("list", "--engine", "memory:"), Exit.usage, "--url"),
        (("create", "web", "--engine", "memory:"), Exit.usage, "--url"),
    ],
)
def test_what_cannot_be_is_told(folder: Path, arguments: tuple[str, ...], code: Exit, told: str) -> None:
    """One line with what is wrong, and a code."""
    created("first")
    result = run("keys", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_no_keys_is_said_to_be_none(folder: Path) -> None:
    """A person is told what that means."""
    run("keys", "create", "x", "--engine", "sqlite:other.db")
    run("jobs", "list", "--engine", "sqlite:other.db")
    key = created("x")
    run("keys", "revoke", id_of(key))
    assert "revoked" in run("keys", "list", "--text").stdout


# -- which addresses may be served


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "192.0.2.1", "::"])
@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize("has_key", [False, True])
def test_an_address_that_others_reach_needs_a_key(host: str, insecure: bool, has_key: bool) -> None:
    """Or somebody who insists; this machine's own needs neither, and the store is not asked for it."""
    asked: list[bool] = []

    def look() -> bool:
        asked.append(True)
        return has_key

    is_own = host in ("127.0.0.1", "localhost", "::1")
    if is_own or insecure or has_key:
        check_bind(host, insecure, look)
    else:
        with pytest.raises(InvalidRequest, match="ropeway keys create"):
            check_bind(host, insecure, look)
    assert bool(asked) == (not is_own and not insecure)


def test_the_first_key_lets_a_gateway_out(folder: Path) -> None:
    """Refused before; after it the gateway goes as far as to listen, which it cannot at an address that is not here."""
    for command in (("api",), ("up", "served:app")):
        refused = run(*command, "--host", "192.0.2.1", "--port", "0")
        assert refused.exit_code == Exit.usage
        assert "ropeway keys create" in refused.stderr
    assert not (folder / "ropeway.db").exists()
    created("web")
    for command in (("api",), ("up", "served:app")):
        tried = run(*command, "--host", "192.0.2.1", "--port", "0")
        assert tried.exit_code == Exit.no_start
        assert "cannot listen on 192.0.2.1" in tried.stderr


@pytest.mark.parametrize("command", [("api",), ("up", "served:app")], ids=["api", "up"])
@pytest.mark.parametrize(
    ("engine", "remedy"),
    [
        (None, "`ropeway keys create NAME`"),
        ("sqlite:other.db", "`ropeway keys create NAME --engine sqlite:"),
        ("memory:", "sqlite:, redis:"),
    ],
)
def test_who_would_let_everybody_in_reads_what_to_do(
    folder: Path, command: tuple[str, ...], engine: str | None, remedy: str
) -> None:
    """In one line: make a key, on the engine that was named; or stay on this machine; or insist."""
    if (command[0], engine) == ("api", "memory:"):
        return  # it is refused for another reason
    named = () if engine is None else ("--engine", engine)
    refused = run(*command, "--host", "0.0.0.0", "--port", "0", *named)
    assert refused.exit_code == Exit.usage
    (line,) = refused.stderr.strip().splitlines()
    for words in ("others can reach 0.0.0.0", remedy, "127.0.0.1", "--insecure"):
        assert words in line


@pytest.mark.parametrize(
    ("host", "insecure", "has_key", "is_warned"),
    [
        ("0.0.0.0", True, False, True),
        ("0.0.0.0", True, True, False),
        ("0.0.0.0", False, False, False),
        ("127.0.0.1", True, False, False),
    ],
)
async def test_who_insists_is_warned(
    host: str, insecure: bool, has_key: bool, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, when it begins to serve: what is open, and what ends it."""
    engine = MemoryEngine()
    await engine.open()
    if has_key:
        await KeyRing(engine).create("ops")
    await warn_if_open(ServerSettings(host=host, insecure=insecure), engine)
    await engine.shut()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * is_warned
    assert not is_warned or "whoever reaches this gateway may do everything" in caplog.text


# -- through a gateway


def test_commands_and_clients_show_their_key(folder: Path, up: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or a flag; a wrong one is one line. No secret is in the store or in what anybody wrote."""
    url = up.ready()["url"]
    assert run("jobs", "list", "--url", url).exit_code == 0, "none is asked for yet"
    first = run("keys", "create", "web", "--url", url)
    assert (first.exit_code, "admin" in first.stderr) == (Exit.usage, True)
    admin = created("ops", "--scopes", "admin,jobs:read,jobs:write", "--url", url)
    none = run("jobs", "list", "--url", url)
    assert (none.exit_code, "a key is asked for" in none.stderr) == (Exit.refused, True)
    monkeypatch.setenv("ROPEWAY_KEY", admin)
    web = created("web", "--url", url, "--tenant", "acme", "--max-priority", "normal", "--requests-per-min", "1000")
    assert {key["name"] for key in lines_of(run("keys", "list", "--url", url))} == {"ops", "web"}
    assert run("queues", "list", "--url", url).exit_code == 0
    assert run("queues", "list", "--url", url, "--api-key", web[:-1]).exit_code == Exit.refused
    assert run("jobs", "list", "--url", url, "--api-key", "two words").exit_code == Exit.usage
    high = run("jobs", "submit", "greet", "-i", '{"name": "x"}', "--priority", "high", "--url", url, "--api-key", web)
    assert (high.exit_code, "at priority normal" in high.stderr) == (Exit.refused, True)

    secrets = [admin, web, *asyncio.run(clients_at(url, web, admin))]
    revoked = run("keys", "revoke", id_of(web), "--url", url)
    assert revoked.exit_code == 0

    def dead() -> bool:
        return httpx.get(f"{url}/v1/jobs", headers={"authorization": f"Bearer {web}"}).status_code == 401

    until(dead, "the revoked key opens nothing")
    code, said = up.stop()
    assert code == Exit.ok
    assert f"key {id_of(web)} revoked, by key {id_of(admin)}" in said
    written = b"".join(path.read_bytes() for path in folder.glob("ropeway.db*") if path.is_file()) + said.encode()
    for key in secrets:
        assert key.split("_")[2][:20].encode() not in written
        assert id_of(key).encode() in written, "it was looked for in the right place"


async def clients_at(url: str, web: str, admin: str) -> list[str]:
    """What `Client` does with a key; the keys that it made."""
    async with Client(url, key=web) as client:
        job = await client.submit("greet", name="Ada")
        assert await job.result(timeout=60) == "Hello, Ada!"
        assert [event.type async for event in job.events()][-1] == "job.succeeded"
        assert web not in repr(client) + repr(vars(client._transport))
        with pytest.raises(Forbidden, match="admin"):
            await client.keys.find()
    async with Client(url, key=admin) as client:
        made = await client.keys.create("third", scopes=["jobs:read"], limits=KeyLimits(max_streams=1), ttl=60)
        assert (made.tenant, made.scopes, made.key in repr(made)) == ("default", ("jobs:read",), False)
        turned = await client.keys.rotate(made.id, overlap=5)
        assert (await client.keys.revoke(turned.id)).state == "revoked"
        assert (await client.keys.set_limits("acme", KeyLimits(requests_per_min=1))).name == "acme"
        assert [tenant.name for tenant in await client.keys.tenants()] == ["acme"]
        (secret,) = await client.keys.webhook_secrets("acme")
        changed = await client.keys.rotate_webhook_secret("acme", overlap=60)
        assert [one.secret for one in await client.keys.webhook_secrets("acme")] == [changed.secret, secret.secret]
        assert secret.secret not in repr(secret)
        with pytest.raises(InvalidRequest, match=r"overlap|>= 0"):
            await client.keys.rotate_webhook_secret("acme", overlap=-1)
        with pytest.raises(InvalidRequest, match="tenant name"):
            await client.keys.webhook_secrets("a b")
        with pytest.raises(KeyNotFound):
            await client.keys.revoke("00000000000")
    return [made.key, turned.key]


def test_code_without_a_loop_shows_its_key_too(folder: Path, up: Process) -> None:
    """`SyncClient` is the same, with its errors."""
    url = up.ready()["url"]
    with SyncClient(url) as client:
        admin = client.keys.create("ops", scopes=["admin", "jobs:read", "jobs:write"]).key
        with pytest.raises(Unauthenticated):
            client.tasks()
    with SyncClient(url, key=admin) as client:
        assert client.submit("greet", name="Ada").result(timeout=60) == "Hello, Ada!"
        assert [key.name for key in client.keys.find()] == ["ops"]
        changed = client.keys.rotate_webhook_secret("default", overlap=0)
        assert [one.secret for one in client.keys.webhook_secrets("default")] == [changed.secret]
        one = client.keys.create("one", scopes=["jobs:read"], limits=KeyLimits(requests_per_min=1))
        client.keys.set_limits("acme", KeyLimits(max_queued=1))
        assert len(client.keys.tenants()) == 1
        again = client.keys.rotate(one.id)
        with SyncClient(url, key=again.key) as limited:
            limited.tasks()
            with pytest.raises(RateLimited) as refused:
                limited.tasks()
        assert refused.value.retry_after_s == 60
        assert client.keys.revoke(again.id).state == "revoked"
    with pytest.raises(InvalidRequest, match="key"):
        SyncClient(url, key="two words")
