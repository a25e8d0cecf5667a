"""Where a sender connects to: one resolution, every address checked, that very address, and nothing after it."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
from hooks_support import a_message, a_sender, endpoint, names, opened_engine

from ropeway.domain.errors import TaskFault
from ropeway.domain.targets import AllowList, parse_url
from ropeway.operations.webhooks import connecting
from ropeway.operations.webhooks.connecting import Unreachable, connect
from ropeway.operations.webhooks.resolving import resolver
from ropeway.operations.webhooks.sender import Undelivered

UNREACHABLE = ("webhook_unreachable", "no connection could be made to the endpoint")
REDIRECT = b"HTTP/1.1 %d Found\r\nLocation: http://127.0.0.1:%d/inside\r\nContent-Length: 0\r\n\r\n"


async def refused(sender: Any, url: str) -> TaskFault:
    with pytest.raises(Undelivered) as failure:
        await sender.send(a_message(url))
    return failure.value.fault


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "169.254.169.254"],
)
async def test_a_name_that_leads_inside_is_never_connected_to(address: str) -> None:
    """A canary on loopback sees no connection; nor when a public address stands before or behind it."""
    async with endpoint() as canary, opened_engine() as engine:
        for answer in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
            sender = a_sender(engine, resolve=names(answer))
            fault = await refused(sender, f"https://hooks.example:{8443}/")
            assert (fault.fault_code, fault.detail) == UNREACHABLE
        assert canary.connections == 0


async def test_a_name_is_resolved_once() -> None:
    """A name server that changes its answer after the check (rebinding) is not asked again."""
    async with endpoint() as inside, opened_engine() as engine:
        asked: list[str] = []

        async def flips(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

        sender = a_sender(engine, f"127.0.0.0/8:{inside.port}", f"hooks.example:{inside.port}", resolve=flips)
        await sender.send(a_message(f"http://hooks.example:{inside.port}/"))
        assert (asked, inside.connections) == (["hooks.example"], 1)
        assert inside.got[0].headers["host"] == f"hooks.example:{inside.port}"


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """Whatever anybody else would take the name for."""
    async with endpoint(host="127.0.0.2") as hook, opened_engine() as engine:
        sender = a_sender(engine, f"localhost:{hook.port}", resolve=names(["127.0.0.2"]))
        await sender.send(a_message(f"http://localhost:{hook.port}/x"))
        assert [got.headers["host"] for got in hook.got] == [f"localhost:{hook.port}"]


async def test_a_forbidden_address_cannot_be_told_from_a_closed_port() -> None:
    """Nor from a name that is none: who names the URL learns nothing of what listens inside."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        async def no_name(host: str, port: int) -> list[str]:
            raise OSError("no such name")

        async with opened_engine() as engine:
            told = [
                await refused(a_sender(engine, resolve=names(["127.0.0.1"])), "https://hooks.example/"),
                await refused(a_sender(engine, resolve=names([])), "https://hooks.example/"),
                await refused(a_sender(engine, resolve=no_name), "https://hooks.example/"),
                await refused(a_sender(engine, f"127.0.0.1:{port}"), f"http://127.0.0.1:{port}/"),
            ]
    assert {(fault.fault_code, fault.detail) for fault in told} == {UNREACHABLE}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """It is a failure like any other, and where it leads sees nothing."""
    async with endpoint() as canary, opened_engine() as engine:
        async with endpoint(REDIRECT % (status, canary.port)) as hook:
            fault = await refused(a_sender(engine, f"127.0.0.1:{hook.port}"), hook.url)
            assert (fault.fault_code, len(hook.got)) == ("webhook_status", 1)
            assert fault.detail == f"answered {status}; redirects are not followed"
        assert canary.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "https://localhost:{port}/"])
async def test_loopback_is_closed_unless_it_is_allowed(url: str) -> None:
    """As addresses and names alike; what the URL itself tells is refused for good."""
    async with endpoint() as canary, opened_engine() as engine:
        fault = await refused(a_sender(engine), url.format(port=canary.port))
        assert (fault.fault_code, canary.connections) == ("webhook_refused", 0)


async def test_localhost_is_closed_on_an_allowed_port() -> None:
    """The system's own name for it is resolved as any other, and its addresses judged."""
    async with opened_engine() as engine:
        fault = await refused(a_sender(engine), "https://localhost:8443/")
        assert (fault.fault_code, fault.detail) == UNREACHABLE


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of proxies in the environment lead nothing astray."""
    async with endpoint() as proxy, endpoint() as hook, opened_engine() as engine:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))
        assert (proxy.connections, hook.connections) == (0, 1)


async def test_the_other_end_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose far end is another address than the one that was checked is dropped before a byte is sent."""
    async with endpoint() as hook:
        context = ssl.create_default_context()
        target = parse_url(f"http://hooks.example:{hook.port}/")
        real = connecting._reach_one

        async def misled(address: str, port: int) -> socket.socket:
            monkeypatch.setattr(socket.socket, "getpeername", lambda self: ("127.0.0.9", port))
            return await real(address, port)

        monkeypatch.setattr(connecting, "_reach_one", misled)
        with pytest.raises(Unreachable) as failure:
            await connect(target, AllowList(["hooks.example"]), names(["127.0.0.1"]), context)
        assert "the other end is" in failure.value.why
        assert hook.got == []


async def test_each_address_is_tried() -> None:
    """An address that does not answer does not hide one that does."""
    async with endpoint() as hook, opened_engine() as engine:
        sender = a_sender(engine, f"hooks.example:{hook.port}", resolve=names(["127.0.0.77", "127.0.0.1"]))
        await sender.send(a_message(f"http://hooks.example:{hook.port}/x"))
        assert hook.got[0].line == "POST /x HTTP/1.1"


async def test_the_systems_resolver_finds_and_misses() -> None:
    """Addresses of a name, or OSError: from a thread of its own."""
    assert {"127.0.0.1", "::1"}.intersection(await resolver()("localhost", 443))
    for name in ("no-such-host.invalid", "a" * 64 + ".example"):
        with pytest.raises(OSError):
            await resolver()(name, 443)
