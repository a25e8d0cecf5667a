"""Tasks for a provider, declared on an application and run by a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

import pytest
from models_support import KEY, Exchange, Provider, chunk, provider, refuses, says, until

from ropeway import App, ChatRequest, Client, InvalidRequest, JobFailed, ResourceFailed, Retry, Worker, connect
from ropeway.models import UpstreamOptions, upstream
from ropeway.models.keys import KeySource, ModelUnavailable, Secret
from ropeway.runtime.registry import TaskSettings

FAST = UpstreamOptions(retry=Retry(max_attempts=1))
TWICE: Any = {"retry": Retry(max_attempts=2, base_s=0.0, cap_s=0.0)}


@asynccontextmanager
async def working(app: App) -> AsyncIterator[Client]:
    """A client of an engine with a worker on it."""
    engine = connect("memory:")
    await engine.open()
    worker = Worker(app, engine)
    run = asyncio.create_task(worker.run())
    try:
        await worker.started()
        async with Client(engine) as client:
            yield client
    finally:
        await worker.stop()
        await asyncio.gather(run, return_exceptions=True)
        await engine.shut()


def asking(on: Provider, **settings: Unpack[TaskSettings]) -> App:
    app = App()
    upstream(app, on.url, models=["small"], options=FAST, task=settings)
    return app


def hello(**fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": "hello"}], **fields}


# -- as jobs


async def test_a_job_streams_what_the_provider_says() -> None:
    """Its output is the text, its usage the tokens."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    async with provider(says("Hel", "lo", usage=usage)) as on, working(asking(on)) as client:
        job = await client.submit("chat", request=hello())
        assert await job.result(20) == "Hello"
        deltas = [event.data["delta"] async for event in job.events() if event.type == "output.delta"]
        assert "".join(deltas) == "Hello"
        assert (await job.get()).usage == {"input_tokens": 3, "output_tokens": 2}


async def test_an_answer_that_broke_is_begun_anew_by_the_next_attempt() -> None:
    """Readers are told to forget the half that they have."""

    async def broken(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(chunk("half"))

    async with provider(broken, says("whole")) as on, working(asking(on, **TWICE)) as client:
        job = await client.submit("chat", request=hello())
        assert await job.result(20) == "whole"
        types = [event.type async for event in job.events() if event.type.startswith("output")]
        assert types == ["output.delta", "output.reset", "output.delta"]


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (429, "provider_rate_limited", 2),
        (503, "provider_error", 2),
        (400, "input_invalid", 1),
        (401, "provider_error", 1),
    ],
)
async def test_a_failed_job_says_why(status: int, code: str, attempts: int) -> None:
    """The code tells whose fault it was; only what may pass is tried again."""
    async with provider(refuses(status, "nope")) as on, working(asking(on, **TWICE)) as client:
        job = await client.submit("chat", request=hello())
        with pytest.raises(JobFailed) as failed:
            await job.result(20)
        assert (failed.value.error.code, (await job.get()).attempt) == (code, attempts)


async def test_a_cancelled_job_hangs_up() -> None:
    """The provider stops generating, and what had come is kept."""
    left = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.raw(chunk("some"))
        await exchange.left()
        left.set()

    async with provider(script) as on, working(asking(on)) as client:
        job = await client.submit("chat", request=hello())
        async for event in job.events():
            if event.type == "output.delta":
                await job.cancel()
        async with asyncio.timeout(20):
            await left.wait()
        body = await job.get()
        assert (body.state, body.output) == ("cancelled", "some")


async def test_several_upstreams_live_in_one_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its tasks, its queue and its key."""
    monkeypatch.setenv("FIRST_KEY", "key-1")
    app = App()
    async with provider(says("one")) as first, provider(says("two")) as second:
        upstream(app, first.url, key="env:FIRST_KEY", models=["small"], name="first", options=FAST)
        family = upstream(app, second.url, models={"large": "vendor/large"}, embeddings=["vec"], name="2nd.one")
        assert sorted(app.tasks) == ["2nd.one.chat", "2nd.one.embed", "first.chat"]
        assert family.embed is not None and family.embed.card.queue == "2nd.one.embed"
        assert [card.models[0].id for card in app.cards] == ["small", "large", "vec"]
        async with working(app) as client:
            assert await (await client.submit("first.chat", request=hello())).result(20) == "one"
            assert await (await client.submit("2nd.one.chat", request=hello(model="large"))).result(20) == "two"
        assert first.calls[0].headers["authorization"] == "Bearer key-1"
        assert "authorization" not in second.calls[0].headers
        assert second.calls[0].body["model"] == "vendor/large"


async def test_the_task_object_takes_a_request() -> None:
    """Checked by its types before anything is stored."""
    async with provider(says("typed")) as on:
        app = App()
        family = upstream(app, on.url, models=["small"])
        assert family.chat is not None and family.embed is None
        async with working(app) as client:
            job = await client.submit(family.chat, ChatRequest(model="small", messages=[]))
            assert await job.result(20) == "typed"


async def test_a_worker_runs_as_many_at_once_as_the_upstream_allows() -> None:
    """What is above waits in the queue, where others can take it."""
    gate = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await gate.wait()
        await says("ok")(exchange)

    async with provider(script) as on:
        app = App()
        upstream(app, on.url, models=["small"], options=UpstreamOptions(concurrency=2))
        async with working(app) as client:
            jobs = [await client.submit("chat", request=hello()) for _ in range(5)]
            await until(lambda: on.in_flight == 2, "two run")
            states = sorted([(await job.get()).state for job in jobs])
            assert states == ["queued"] * 3 + ["running"] * 2
            gate.set()
            assert [await job.result(20) for job in jobs] == ["ok"] * 5
    assert on.peak == 2


# -- what cannot be


@pytest.mark.parametrize(
    ("url", "settings", "why"),
    [
        ("api.example.com/v1", {}, "no base URL"),
        ("ftp://api.example.com/v1", {}, "no base URL"),
        ("https://api.example.com/v1?x=1", {}, "no base URL"),
        ("https://me:hunter2@api.example.com/v1", {}, "a key in the base URL"),
        ("http://api.example.com/v1", {"key": "env:KEY"}, "in the clear"),
        ("https://api.example.com/v1", {"models": []}, "name the models"),
        ("https://api.example.com/v1", {"models": "small"}, "models are several"),
        ("https://api.example.com/v1", {"key": KEY}, "named by where it is"),
        ("https://api.example.com/v1", {"key": "env:"}, "named by where it is"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(url: str, settings: dict[str, Any], why: str) -> None:
    """In one sentence that says what to do, and never repeats what may be a key."""
    with pytest.raises(InvalidRequest, match=why) as refused:
        upstream(App(), url, **{"models": ["small"], **settings})
    assert KEY not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_key_may_go_in_the_clear_on_the_loopback_or_by_order() -> None:
    """A server of one's own on this machine has no certificate."""
    for url in ("http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"):
        upstream(App(), url, models=["small"], key="env:KEY")
    upstream(App(), "http://vllm/v1", models=["small"], key="env:KEY", options=UpstreamOptions(allow_plain_http=True))


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"idle_s": 0},
        {"max_wait_s": -1},
        {"max_line_bytes": 10},
        {"headers": {"Authorization": "x"}},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Each by its name."""
    with pytest.raises(ValueError, match=r"upstream|Ropeway's own"):
        UpstreamOptions(**options)


async def test_a_worker_without_its_key_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which, and what to type."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    app = App()
    upstream(app, "https://api.example.com/v1", key="env:NO_SUCH_KEY", models=["small"])
    engine = connect("memory:")
    await engine.open()
    with pytest.raises(ResourceFailed, match="export NO_SUCH_KEY="):
        await Worker(app, engine).run()
    await engine.shut()


# -- keys


def test_a_key_is_never_shown() -> None:
    """Not by repr, str or a format, nor pickled to another process."""
    key = Secret(KEY)
    assert not [text for text in (repr(key), str(key), f"{key}", f"{[key]!r}") if KEY in text]
    assert key.hidden_in(f"it is {KEY}!") == "it is ***!"
    with pytest.raises(TypeError):
        key.__reduce__()


def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """Without the line end that an editor leaves."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert KeySource("env:K").read({"K": f" {KEY}"}).reveal() == KEY
    assert KeySource(f"file:{file}").read().reveal() == KEY
    assert not KeySource(None).read()


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "smile \u263a", "x" * 5_000])
def test_what_is_no_key_is_not_sent(text: str, tmp_path: Path) -> None:
    """A header cannot carry it; the message does not repeat it."""
    file = tmp_path / "key"
    file.write_text(text)
    for source, environ in ((f"file:{file}", {}), ("env:K", {"K": text}), ("file:/no/such/file", {})):
        with pytest.raises(ModelUnavailable) as refused:
            KeySource(source).read(environ)
        assert len(text) < 2 or text not in str(refused.value)
