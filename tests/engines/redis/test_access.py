"""Ways to a server that is not open to all: users with the fewest rights, sockets, and TLS; and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from redis_harness import RedisHarness
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.job import NewJob
from ropeway.engines.base import EngineInfo
from ropeway.engines.redis import RedisEngine, fleet
from ropeway.engines.redis.fsck import inspect
from ropeway.engines.redis.link import Refused
from ropeway.engines.redis.rights import acl_rules
from ropeway.testing.conformance import checks_for, run
from servers import Server

PASSWORD = "c4naryS3cret"


@pytest.fixture(name="soon")
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens an engine waits half a second for its server, not ten."""
    monkeypatch.setattr(fleet, "OPEN_S", 0.5)


class Guarded(NamedTuple):
    """A server that is not open to all."""

    server: Server
    socket: Path

    @property
    def port(self) -> int:
        return self.server.port


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """A server on a socket and a port, whose default user needs a password, and a user with the rights of the docs."""
    folder = Path(tempfile.mkdtemp(prefix="rw-"))  # a socket's path must be short
    socket = ("--unixsocket", f"{folder}/v.sock", "--unixsocketperm", "700")
    server = Server("--appendonly", "yes", "--appendfsync", "no", *socket)
    server.start()
    assert server.ask(f"ACL SETUSER queue on >{PASSWORD} {acl_rules('t')} {acl_rules('limited')}") == "+OK"
    assert server.ask(f"ACL SETUSER default >{PASSWORD} resetpass >{PASSWORD}") == "+OK"
    yield Guarded(server, folder / "v.sock")
    server.delete()
    shutil.rmtree(folder)


class _AsUser(RedisHarness):
    """Engines as a user that may do what the documentation says, and no more."""

    def __init__(self, guarded: Guarded) -> None:
        super().__init__()
        self._port = guarded.port

    def url(self, prefix: str) -> str:
        return f"redis://queue:{PASSWORD}@127.0.0.1:{self._port}?prefix=limited:{prefix}"


async def test_the_whole_engine_works_with_few_rights(guarded: Guarded) -> None:
    """Every promise of the protocol is kept by a user with the rules of the documentation."""
    harness = _AsUser(guarded)
    for check in checks_for(harness):
        await run(check, harness)


async def test_a_look_at_the_store_works_with_few_rights(guarded: Guarded) -> None:
    """`ropeway fsck` needs no more."""
    async with opened(_AsUser(guarded).url("look")) as engine:
        await engine.submit([NewJob("j", "t", "q", "echo", "{}", idempotency_key="k")])
        assert await inspect(engine.partitions[0]) == []


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG SET maxmemory 1",
        "SCRIPT FLUSH",
        "FUNCTION LIST",
        "ACL LIST",
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "CLIENT LIST",
        "MONITOR",
        "GET limited:x",
        "HGETALL somebody:else",
        "EVAL return(redis.call('HGETALL',KEYS[1])) 1 somebody:else",
        "SPUBLISH somebody:else x",
        "SSUBSCRIBE somebody:else",
    ],
)
async def test_what_it_needs_not_is_refused(guarded: Guarded, command: str) -> None:
    """The user cannot empty, stop or change the server, nor look at other programs' keys and channels."""
    async with opened(_AsUser(guarded).url("no")) as engine:
        link = await engine.partitions[0].route.extra()
        answer = await link.do(*command.split(" "))
        link.close()
        assert isinstance(answer, Refused)
        assert "NOPERM" in str(answer) or "ACL" in str(answer)


async def test_a_wrong_password_is_told_without_it(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """The engine says what the server says; neither the right nor the wrong password is in it."""
    for user, password in (("queue", "wr0ngC4nary"), ("nobody", PASSWORD)):
        engine = RedisEngine(f"redis://{user}:{password}@127.0.0.1:{guarded.port}?timeout_s=0.5")
        with caplog.at_level(logging.DEBUG), pytest.raises(EngineUnavailable) as refusal:
            await engine.open()
        assert "WRONGPASS" in refusal.value.detail
        assert password not in refusal.value.detail + caplog.text + repr(refusal.value.__cause__)


async def test_no_password_is_told_anywhere(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the log, in what the engine says of itself, nor in what is raised when its server goes."""
    url = f"redis://queue:{PASSWORD}@127.0.0.1:{guarded.port}?prefix=t:canary&timeout_s=0.5"
    with caplog.at_level(logging.DEBUG):
        async with opened(url) as engine:
            await engine.submit([NewJob("j", "t", "q", "echo", "{}")])
            info = engine.info
            assert info.url == url.replace(PASSWORD, "***")
            described = f"{info!r} {engine!r} {vars(engine)} {vars(engine.partitions[0].route)}"
            guarded.server.ask("CLIENT KILL TYPE normal")
            await engine.stats()
    assert "queue:***@" in caplog.text
    assert PASSWORD not in described + caplog.text


async def test_the_default_user_needs_only_a_password(guarded: Guarded) -> None:
    """`redis://:password@host`; without one the refusal names the remedy's place."""
    assert (await info_of(f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}")).kind == "redis"
    with pytest.raises(EngineUnavailable, match="NOAUTH"):
        await info_of(f"redis://127.0.0.1:{guarded.port}?timeout_s=0.5")


async def test_a_socket_is_a_way(guarded: Guarded) -> None:
    """`unix://`, with a user or without, and its numbered databases."""
    url = f"unix://queue:{PASSWORD}@{guarded.socket}?prefix=t:unix"
    assert (await info_of(url)).url == url.replace(PASSWORD, "***")
    async with opened(f"{url}&db=3") as engine:
        await engine.submit([NewJob("in-3", "t", "q", "echo", "{}")])
    async with opened(url) as engine:
        assert await engine.get("t", ["in-3"]) == [None]


@pytest.mark.usefixtures("soon")
async def test_a_socket_that_is_not_there_is_told() -> None:
    """The refusal names it."""
    with pytest.raises(EngineUnavailable, match=r"nobody\.sock"):
        await info_of("unix:///tmp/nobody.sock?timeout_s=0.5")


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate for 127.0.0.1 and a client's, and another authority with a client's."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority, names in (("ca", ("server", "client")), ("other", ("stranger",))):
        _openssl(folder, f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key"
                         f" -out {authority}.pem")  # fmt: skip
        for name in names:
            _openssl(folder, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr")
            (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
            _openssl(folder, f"x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial"
                             f" -days 2 -extfile san -out {name}.pem")  # fmt: skip
    return folder


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)


@asynccontextmanager
async def tls_in_front_of(port: int, certificates: Path) -> AsyncIterator[int]:
    """A port on which TLS ends, before a server without it; who has no certificate of `ca` is turned away."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    both: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        for task in (carry(reader, far_writer), carry(far_reader, writer)):
            both.add(asyncio.create_task(task))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*both)


def tls_url(port: int, certificates: Path, ca: str = "ca", client: str | None = "client") -> str:
    url = f"rediss://queue:{PASSWORD}@127.0.0.1:{port}?prefix=t:tls&timeout_s=1&ca={certificates}/{ca}.pem"
    return url if client is None else f"{url}&cert={certificates}/{client}.pem&key={certificates}/{client}.key"


async def test_tls_is_a_way(guarded: Guarded, certificates: Path) -> None:
    """With the authority and a client certificate: jobs, hints and a worker's own renewals go over TLS."""
    async with (
        tls_in_front_of(guarded.port, certificates) as port,
        opened(tls_url(port, certificates)) as engine,
    ):
        with engine.listen("lifecycle") as hints:
            await engine.submit([NewJob("over-tls", "t", "q", "echo", "{}")])
            assert await hints.wait(10) == {"lifecycle"}
        renewer = engine.renewer()
        renewal = await asyncio.to_thread(renewer.renew, "nobody", 1000)
        await asyncio.to_thread(renewer.close)
        assert not renewal.alive


@pytest.mark.parametrize(
    ("ca", "client", "told"),
    [
        ("other", "client", "certificate verify failed"),
        ("ca", "stranger", "not to be reached"),
        ("ca", None, "not to be reached"),
    ],
)
@pytest.mark.usefixtures("soon")
async def test_who_cannot_prove_himself_gets_no_connection(
    guarded: Guarded, certificates: Path, ca: str, client: str | None, told: str
) -> None:
    """A server of another authority, and a client of another or of none: nothing is sent, and the reason is told."""
    async with tls_in_front_of(guarded.port, certificates) as port:
        with pytest.raises(EngineUnavailable, match=told):
            await info_of(tls_url(port, certificates, ca, client))


@pytest.mark.usefixtures("soon")
async def test_plain_and_tls_do_not_mix(guarded: Guarded) -> None:
    """`rediss://` to a server without TLS ends with a reason."""
    with pytest.raises(EngineUnavailable, match="not to be reached"):
        await info_of(f"rediss://queue:{PASSWORD}@127.0.0.1:{guarded.port}?timeout_s=0.5")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisEngine]:
    engine = RedisEngine(url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.shut()


async def info_of(url: str) -> EngineInfo:
    async with opened(url) as engine:
        return engine.info
