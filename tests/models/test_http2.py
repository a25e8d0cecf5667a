"""Over TLS the streams to a provider share one HTTP/2 connection."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from httpcore2 import AsyncNetworkStream
from models_support import DONE, KEY, TheJob, ask, asked, chunk, until

from ropeway import Retry, RetryAfter
from ropeway.models.calling import Upstream
from ropeway.models.http2 import _Stream, _WholeWrites
from ropeway.models.keys import Secret
from ropeway.models.options import UpstreamOptions


class Http2Provider(asyncio.Protocol):
    """Begins every answer with one word, and ends it when it is told to. The class keeps what all connections did."""

    silent = False
    connections = 0
    began = 0
    resets: list[int] = []
    made: list[Http2Provider] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._h2.initiate_connection()
        self._send()
        self.open: list[int] = []
        type(self).connections += 1
        type(self).made.append(self)

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, RequestReceived):
                assert dict(event.headers or ())[b"authorization"] == f"Bearer {KEY}".encode()
            elif isinstance(event, StreamEnded):
                self._begin(event.stream_id or 0)
            elif isinstance(event, StreamReset):
                type(self).resets.append(event.stream_id or 0)
        self._send()

    def finish(self) -> None:
        """End every answer that is open."""
        for stream in self.open:
            self._h2.send_data(stream, chunk("end", "stop") + DONE, end_stream=True)
        self.open.clear()
        self._send()

    def _begin(self, stream: int) -> None:
        type(self).began += 1
        if self.silent:
            return
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
        self._h2.send_data(stream, chunk("begin"))
        self.open.append(stream)

    def _send(self) -> None:
        self._transport.write(self._h2.data_to_send())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the loopback, with its key in the same file."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "this test makes its certificate with openssl: install it"
    file = tmp_path_factory.mktemp("tls") / "loopback.pem"
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    subprocess.run(
        [openssl, "req", "-x509", *made, *names, "-keyout", str(file), "-out", f"{file}.crt"],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@asynccontextmanager
async def http2_provider(certificate: Path) -> AsyncIterator[str]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    tls.set_alpn_protocols(["h2"])
    Http2Provider.connections, Http2Provider.began, Http2Provider.resets, Http2Provider.made = 0, 0, [], []
    server = await asyncio.get_running_loop().create_server(Http2Provider, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def upstream(url: str, certificate: Path) -> Upstream:
    return Upstream(url, {"small": "small"}, Secret(KEY), UpstreamOptions(ca_file=f"{certificate}.crt"))


async def test_many_streams_share_a_connection(certificate: Path) -> None:
    """Fifty answers at once: one handshake, one socket."""
    async with http2_provider(certificate) as url, upstream(url, certificate) as up:
        calls = [asyncio.create_task(ask(up)) for _ in range(50)]
        await until(lambda: Http2Provider.began == 50, "all have begun")
        for one in Http2Provider.made:
            one.finish()
        assert await asyncio.gather(*calls) == [["begin", "end"]] * 50
        assert Http2Provider.connections == 1


async def test_a_stopped_call_resets_its_stream_alone(certificate: Path) -> None:
    """The provider is told at once; the others on the connection go on."""
    async with http2_provider(certificate) as url, upstream(url, certificate) as up:
        stopped, other = up.chat(asked(), TheJob()), up.chat(asked(), TheJob())
        assert (await anext(stopped), await anext(other)) == ("begin", "begin")
        await stopped.aclose()
        await until(lambda: len(Http2Provider.resets) == 1, "the stream is reset")
        (connection,) = Http2Provider.made
        connection.open.remove(Http2Provider.resets[0])
        connection.finish()
        assert [piece async for piece in other] == ["end"]


async def test_cancelling_at_any_moment_leaves_the_others_alone(certificate: Path) -> None:
    """Half of fifty calls are cancelled, each at another step of its way; the rest finish, on the same connection."""
    async with http2_provider(certificate) as url, upstream(url, certificate) as up:
        first = asyncio.create_task(ask(up))
        await until(lambda: Http2Provider.began == 1, "the connection is made")
        kept = [first, *[asyncio.create_task(ask(up)) for _ in range(25)]]
        for steps in range(25):
            stopped = asyncio.create_task(ask(up))
            for _ in range(steps):
                await asyncio.sleep(0)
            stopped.cancel()
            await asyncio.wait([stopped])
        (connection,) = Http2Provider.made
        live = len(kept)
        await until(lambda: len(set(connection.open) - set(Http2Provider.resets)) == live, "all others have begun")
        connection.open = [stream for stream in connection.open if stream not in Http2Provider.resets]
        connection.finish()
        assert await asyncio.gather(*kept) == [["begin", "end"]] * live
        assert Http2Provider.connections == 1


async def test_calls_that_never_had_an_answer_are_reset_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while the provider still thinks, and given up on when it thinks for too long."""
    monkeypatch.setattr(Http2Provider, "silent", True)
    async with http2_provider(certificate) as url, upstream(url, certificate) as up:
        cancelled = asyncio.create_task(ask(up))
        await until(lambda: Http2Provider.began == 1, "it is asked")
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await until(lambda: len(Http2Provider.resets) == 1, "it is reset")
    options = UpstreamOptions(ca_file=f"{certificate}.crt", first_token_s=0.2, retry=Retry(max_attempts=1))
    async with http2_provider(certificate) as url, Upstream(url, {"small": "small"}, Secret(KEY), options) as up:
        tries = 0
        while not Http2Provider.resets:  # on a busy machine the first may be out of time before it is even sent
            with pytest.raises(RetryAfter, match="no answer"):
                await ask(up)
            tries += 1
            assert tries < 50


async def test_no_log_shows_a_key(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at the level at which the libraries below tell of every header."""
    with caplog.at_level(logging.DEBUG):
        async with http2_provider(certificate) as url, upstream(url, certificate) as up:
            pieces = up.chat(asked(), TheJob())
            assert await anext(pieces) == "begin"
            await pieces.aclose()
    assert KEY not in caplog.text


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    """The key is not sent to whoever answers at the address."""
    async with http2_provider(certificate) as url:
        options = UpstreamOptions(retry=Retry(max_attempts=1))
        async with Upstream(url, {"small": "small"}, Secret(KEY), options) as up:
            with pytest.raises(RetryAfter, match="could not be reached: ConnectError"):
                await ask(up)
        assert Http2Provider.began == 0


async def test_a_write_that_has_begun_is_finished(certificate: Path) -> None:
    """Half a record would break the connection for everybody on it: a cancel waits for the other half."""
    going_on, written = asyncio.Event(), []

    class Slow(AsyncNetworkStream):
        async def write(self, buffer: bytes, timeout: float | None = None) -> None:
            written.append("begun")
            await going_on.wait()
            written.append("finished")

    async with upstream("https://127.0.0.1:1/v1", certificate) as up:
        assert isinstance(getattr(up._transport._pool, "_network_backend", None), _WholeWrites)

    writing = asyncio.create_task(_Stream(Slow()).write(b"record"))
    await until(lambda: written == ["begun"], "it writes")
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    going_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert written == ["begun", "finished"]
