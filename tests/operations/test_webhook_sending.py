"""One attempt to deliver: what is sent, how it is signed, and what each answer comes to."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import msgspec
import pytest
from hooks_support import OK, Endpoint, a_message, a_sender, endpoint, names, opened_engine
from standardwebhooks import Webhook, WebhookVerificationError

from ropeway.domain.clock import SystemClock
from ropeway.domain.errors import Fail, RetryAfter, TaskFault
from ropeway.engines.memory import MemoryEngine
from ropeway.operations.webhooks import Attempted, Endpoints, Secrets
from ropeway.operations.webhooks.sender import Undelivered
from ropeway.testing import ManualClock, seeded_random


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} So\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def failed(engine: MemoryEngine, hook: Endpoint, timeout_s: float = 10.0) -> Undelivered:
    with pytest.raises(Undelivered) as failure:
        await a_sender(engine, f"127.0.0.1:{hook.port}", timeout_s=timeout_s).send(a_message(hook.url))
    return failure.value


def ring(engine: MemoryEngine) -> Secrets:
    return Secrets(engine, SystemClock(), seeded_random("ring"))


# -- what is sent


async def test_a_delivery_is_what_standard_webhooks_says() -> None:
    """Headers, the body `{type, timestamp, data}`, and a signature that the reference verifier takes."""
    async with endpoint() as hook, opened_engine() as engine:
        attempted = await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))
        (got,) = hook.got
        assert got.line == "POST /hook?x=1 HTTP/1.1"
        assert (got.headers["content-type"], got.headers["webhook-id"]) == ("application/json", "msg_0001")
        assert got.headers["host"] == f"127.0.0.1:{hook.port}"
        (secret,) = await ring(engine).valid("acme")
        body = Webhook(secret.secret).verify(got.body, got.headers)
        assert body == {
            "type": "job.succeeded",
            "timestamp": "2026-01-31T00:00:00.000Z",
            "data": {"id": "job_0001", "output": "grüße 🚠"},
        }
        assert (attempted.status, attempted.error) == (204, None)


async def test_a_verifier_refuses_what_was_changed() -> None:
    """An altered body, another id, another secret, and a delivery replayed after five minutes."""
    async with endpoint() as hook, opened_engine() as engine:
        await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))
        (got,) = hook.got
        (secret,) = await ring(engine).valid("acme")
        (other,) = await ring(engine).valid("rival")
        verifier = Webhook(secret.secret)
        old = str(int(got.headers["webhook-timestamp"]) - 301)
        for headers, body, by in (
            (got.headers, got.body.replace("0001", "0002"), verifier),
            ({**got.headers, "webhook-id": "msg_0002"}, got.body, verifier),
            ({**got.headers, "webhook-timestamp": old}, got.body, verifier),
            (got.headers, got.body, Webhook(other.secret)),
        ):
            with pytest.raises(WebhookVerificationError):
                by.verify(body, headers)


async def test_two_secrets_sign_while_one_is_changed() -> None:
    """Both verify until the overlap is over, then the new one alone; and with no overlap the old one never again."""
    clock = ManualClock(SystemClock().now_ms())
    async with endpoint() as hook, opened_engine(clock) as engine:
        secrets = Secrets(engine, clock, seeded_random("ring"))
        (old,) = await secrets.valid("acme")
        new = await secrets.rotate("acme", 60)
        sender = a_sender(engine, f"127.0.0.1:{hook.port}", clock=clock)
        await sender.send(a_message(hook.url))
        clock.advance(s=60)
        await sender.send(a_message(hook.url))
        both, one = hook.got
        for secret in (old, new):
            Webhook(secret.secret).verify(both.body, both.headers)
        assert len(both.headers["webhook-signature"].split(" ")) == 2
        Webhook(new.secret).verify(one.body, one.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(old.secret).verify(one.body, one.headers)
        newest = await secrets.rotate("acme", 0)
        assert await secrets.valid("acme") == (newest,)


async def test_a_secret_is_made_once() -> None:
    """Senders that find none at the same time agree on one; each tenant has its own, of 32 random bytes."""
    async with opened_engine() as engine:
        made = await asyncio.gather(*(Secrets(engine, SystemClock(), seeded_random(n)).valid("acme") for n in range(5)))
        assert len(set(made)) == 1
        (mine,), (theirs,) = made[0], await ring(engine).valid("rival")
        assert mine.secret != theirs.secret
        assert mine.secret.startswith("whsec_")
        assert len(Webhook(mine.secret)._whsecret) == 32


async def test_a_second_rotation_keeps_the_first_ones_end() -> None:
    """A secret that is on its way out is not kept longer by another change."""
    clock = ManualClock()
    async with opened_engine(clock) as engine:
        secrets = Secrets(engine, clock, seeded_random("ring"))
        (first,) = await secrets.valid("acme")
        second = await secrets.rotate("acme", 10)
        third = await secrets.rotate("acme", 100)
        assert [one.secret for one in await secrets.valid("acme")] == [third.secret, second.secret, first.secret]
        clock.advance(s=10)
        assert [one.secret for one in await secrets.valid("acme")] == [third.secret, second.secret]


# -- what comes back


@pytest.mark.parametrize("status", [200, 201, 202, 299])
async def test_any_2xx_is_success(status: int) -> None:
    """And the beginning of its text is kept."""
    async with endpoint(answer(status, b"thanks", content_type="text/plain")) as hook, opened_engine() as engine:
        attempted = await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))
        assert (attempted.status, attempted.excerpt) == (status, "thanks")


@pytest.mark.parametrize("status", [300, 400, 401, 404, 408, 429, 500, 503, 999])
async def test_anything_else_is_a_failure_to_be_tried_again(status: int) -> None:
    """With the status in the log."""
    async with endpoint(answer(status)) as hook, opened_engine() as engine:
        failure = await failed(engine, hook)
        assert type(failure.fault) is TaskFault
        assert (failure.fault.fault_code, failure.attempted.status) == ("webhook_status", status)


async def test_an_informational_answer_is_not_the_answer() -> None:
    """100 and 103 may come before the one that counts."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with endpoint(early + early + OK) as hook, opened_engine() as engine:
        assert (await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))).status == 204


async def test_an_endpoint_says_when_to_try_again() -> None:
    """Retry-After as seconds or as a date; at most a day; what cannot be read is ignored."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    for header, low, high in (("120", 120, 120), (later, 590, 600), ("99999999999999", 86_400, 86_400), ("0", 0, 0)):
        async with endpoint(answer(503, retry_after=header)) as hook, opened_engine() as engine:
            fault = (await failed(engine, hook)).fault
            assert isinstance(fault, RetryAfter)
            assert low <= fault.after_s <= high
    for header in ("soon", "-5", "1.5", "Thu, 99 Foo"):
        async with endpoint(answer(503, retry_after=header)) as hook, opened_engine() as engine:
            assert type((await failed(engine, hook)).fault) is TaskFault


async def test_410_ends_an_endpoint_until_it_is_allowed_again() -> None:
    """Later deliveries to it fail at once and see no connection; another tenant's go on."""
    async with endpoint(answer(410), OK) as hook, opened_engine() as engine:
        sender = a_sender(engine, f"127.0.0.1:{hook.port}")
        first, second = await failed(engine, hook), await failed(engine, hook)
        assert [type(each.fault) for each in (first, second)] == [Fail, Fail]
        assert [each.fault.fault_code for each in (first, second)] == ["webhook_gone", "webhook_disabled"]
        assert hook.connections == 1
        await sender.send(a_message(hook.url, tenant="rival"))
        endpoints = Endpoints(engine, SystemClock())
        (told,) = await endpoints.silenced("acme")
        assert (told.url, told.job_id, await endpoints.silenced("rival")) == (hook.url, "job_0001", [])
        assert await endpoints.allow("acme", hook.url)
        assert not await endpoints.allow("acme", hook.url)
        await sender.send(a_message(hook.url))
        assert hook.connections == 3


async def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    """It has so long and no longer, however it passes the time; none of it is a success."""
    for hold, answers in ((asyncio.Event(), ()), (None, (b"HTTP/1.1 200 O",))):
        async with endpoint(*answers, hold=hold) as hook, opened_engine() as engine:
            failure = await failed(engine, hook, timeout_s=1.0)
            assert failure.fault.fault_code in ("webhook_timeout", "webhook_no_http", "webhook_cut")
            assert failure.attempted.status is None


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 banana\r\n\r\n", b"HTTP/1.1 200 " + b"x" * 70_000, b"\x00" * 99],
)
async def test_what_is_no_answer_is_a_failure(nonsense: bytes) -> None:
    """Whatever it is, it is held to a size."""
    async with endpoint(nonsense) as hook, opened_engine() as engine:
        assert (await failed(engine, hook)).fault.fault_code in ("webhook_no_http", "webhook_cut")


async def test_of_an_answer_one_kilobyte_of_text_is_kept() -> None:
    """Control characters are not passed on, and what is no text not at all."""
    for body, kind, kept in (
        (b"x" * 10_000_000, "text/plain", "x" * 1024),
        (b'{"ok":true}', "application/json; charset=utf-8", '{"ok":true}'),
        (b"a\x1b[31m\x00\xff\n", "text/html", "a�[31m��\n"),
        (b"\x89PNG", "image/png", ""),
    ):
        async with endpoint(answer(500, body, content_type=kind)) as hook, opened_engine() as engine:
            assert (await failed(engine, hook)).attempted.excerpt == kept


async def test_a_body_that_never_ends_does_not_hold_the_answer_back() -> None:
    """The status is what counts: a success whose body drips, or breaks off, is one."""
    for rest in (b"Transfer-Encoding: chunked\r\n\r\nZZ", b"Content-Length: 99\r\n\r\nshort"):
        async with (
            endpoint(b"HTTP/1.1 200 So\r\nContent-Type: text/plain\r\n" + rest) as hook,
            opened_engine() as engine,
        ):
            assert (await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url))).status == 200


async def test_a_message_id_has_no_dot() -> None:
    """In what is signed a dot ends the id."""
    async with endpoint() as hook, opened_engine() as engine:
        await a_sender(engine, f"127.0.0.1:{hook.port}").send(a_message(hook.url, job_id="a.b.c"))
        assert hook.got[0].headers["webhook-id"] == "msg_a_b_c"


def test_what_an_attempt_came_to_is_told_as_the_log_reads_it() -> None:
    """The client's reading of a delivery's log knows each field."""
    told = msgspec.json.decode(msgspec.json.encode(Attempted(500, "e", "m", "x", 0.5)))
    assert told == {"status": 500, "error": "e", "message": "m", "excerpt": "x", "duration": 0.5}


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a certificate of it for `hooks.example`."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)

    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem")
    openssl("req -newkey rsa:2048 -nodes -subj /CN=hooks.example -keyout server.key -out server.csr")
    (folder / "san").write_text("subjectAltName=DNS:hooks.example\n")
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem")
    return folder


async def test_tls_is_with_the_name_and_not_the_address(certificates: Path) -> None:
    """The pinned address is spoken to under the URL's name: SNI, certificate and Host; another name is refused."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    asked: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    async with endpoint(context=serving) as hook, opened_engine() as engine:
        places = (f"hooks.example:{hook.port}", f"other.example:{hook.port}")
        sender = a_sender(engine, *places, resolve=names(["127.0.0.1"]), context=trusting)
        assert (await sender.send(a_message(f"https://{places[0]}/x"))).status == 204
        assert (asked, hook.got[0].headers["host"]) == (["hooks.example"], places[0])
        for who, url in ((sender, places[1]), (a_sender(engine, *places, resolve=names(["127.0.0.1"])), places[0])):
            with pytest.raises(Undelivered) as failure:
                await who.send(a_message(f"https://{url}/x"))
            assert failure.value.fault.fault_code == "webhook_tls"
        assert len(hook.got) == 1
