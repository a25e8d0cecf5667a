"""Webhooks as a person has them: allowed in the settings, delivered by `up`, secrets and logs on the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_process import APPLICATION, Process
from cli_support import lines_of, publish, run, url_in
from standardwebhooks import Webhook

from ropeway.cli.exits import Exit
from ropeway.client import Client
from ropeway.client.deliveries import DeliveryBody
from ropeway.domain.lifecycle import State

PATIENCE_S = 60.0


class Hook:
    """An endpoint on a thread of its own. `before` is called at a request before it is answered, with its number."""

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self.got: list[tuple[dict[str, str], str]] = []
        self.status = 204
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                hook.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                before(len(hook.got))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@contextmanager
def hooked(before: Callable[[int], None] = lambda number: None) -> Iterator[Hook]:
    hook = Hook(before)
    thread = threading.Thread(target=hook.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        hook.server.shutdown()
        thread.join()
        hook.server.server_close()


@contextmanager
def upped(folder: Path, *arguments: str, allow: str = "127.0.0.1") -> Iterator[Process]:
    (folder / "served.py").write_text(APPLICATION)
    (folder / "ropeway.toml").write_text(f'[webhooks]\nallow = ["{allow}"]\n')
    process = Process(folder, "up", "served:app", "--port", "0", *arguments)
    try:
        yield process
    finally:
        process.close()


async def delivered(client: Client, job_id: str, number: int = 0) -> DeliveryBody:
    """The delivery, once it has ended."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await client.deliveries(job_id)
            if len(found) > number and found[number].state.terminal:
                return found[number]
            await asyncio.sleep(0.05)


async def test_up_delivers_and_the_commands_tell_of_it(tmp_path: Path) -> None:
    """Also with queues named; the secret on stdout verifies what came; a redelivery is the same message."""
    engine = f"sqlite:{tmp_path / 'ropeway.db'}"
    with hooked() as hook, upped(tmp_path, "--queues", "default") as up:
        async with Client(up.ready()["url"]) as client:
            job = await client.with_options(webhook=hook.url).submit("greet", name="Ada")
            log = await delivered(client, job.id)
            assert (log.state, [one.status for one in log.attempts]) == (State.succeeded, [204])
            again = await asyncio.to_thread(run, "webhooks", "redeliver", job.id, "--engine", engine, "--json")
            assert lines_of(again)[0]["redelivery_of"] == f"{job.id}-d0"
            await delivered(client, job.id, 1)
        secret = (await asyncio.to_thread(run, "webhooks", "secret", "--engine", engine)).stdout.strip()
        for headers, body in hook.got:
            told = Webhook(secret).verify(body, headers)
            assert (told["type"], told["data"]["output"]) == ("job.succeeded", "Hello, Ada!")
        assert len({headers["webhook-id"] for headers, _ in hook.got}) == 1
        shown = (await asyncio.to_thread(run, "webhooks", "log", job.id, "--engine", engine, "--text")).stdout
        assert f"succeeded  {job.id}-d0  job.succeeded to {hook.url}" in shown
        assert "answered 204" in shown
        assert [
            line["id"] for line in lines_of(await asyncio.to_thread(run, "webhooks", "log", job.id, "--engine", engine))
        ] == [
            f"{job.id}-d0",
            f"{job.id}-d1",
        ]


async def test_a_worker_killed_after_the_answer_delivers_again(tmp_path: Path) -> None:
    """Killed between the 2xx and its commit: another one sends the same message under the same id, and it is done."""
    pids: list[int] = []

    def kill_at_first(number: int) -> None:
        if number == 1:
            os.kill(pids[0], signal.SIGKILL)

    with hooked(kill_at_first) as hook, upped(tmp_path) as up:
        async with Client(up.ready()["url"]) as client:
            pids.append(up.child("worker"))
            job = await client.with_options(webhook=hook.url).submit("greet", name="Ada")
            log = await delivered(client, job.id)
        assert (log.state, [one.error for one in log.attempts]) == (State.succeeded, ["worker_lost", None])
        assert len(hook.got) == 2
        assert len({headers["webhook-id"] for headers, _ in hook.got}) == 1


async def test_deliveries_can_be_left_to_others(tmp_path: Path) -> None:
    """With `deliver = false` a worker makes none: they wait."""
    with hooked() as hook:
        (tmp_path / "served.py").write_text(APPLICATION)
        (tmp_path / "ropeway.toml").write_text('[webhooks]\nallow = ["127.0.0.1"]\ndeliver = false\n')
        process = Process(tmp_path, "up", "served:app", "--port", "0")
        try:
            async with Client(process.ready()["url"]) as client:
                job = await client.with_options(webhook=hook.url).submit("greet", name="Ada")
                await job.result(timeout=PATIENCE_S)
                (waiting,) = await client.deliveries(job.id)
                assert waiting.state is State.queued
            assert process.stop()[0] == Exit.ok
        finally:
            process.close()
        assert hook.got == []


def test_a_target_to_allow_that_is_none_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, by the entry, before anything serves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served.py").write_text(APPLICATION)
    monkeypatch.setenv("ROPEWAY_WEBHOOKS_ALLOW", "http://inside/")
    told = run("up", "served:app")
    assert (told.exit_code, "is no webhook target to allow" in told.stderr) == (Exit.usage, True)


def test_secrets_are_made_shown_and_changed(tmp_path: Path) -> None:
    """Each tenant has its own; a rotation writes the new one; as JSON with its time."""
    url = url_in(tmp_path)
    publish(url)
    first = run("webhooks", "secret", "--engine", url).stdout
    assert first.startswith("whsec_")
    assert run("webhooks", "secret", "--engine", url).stdout == first
    assert run("webhooks", "secret", "--tenant", "acme", "--engine", url).stdout != first
    second = run("webhooks", "rotate", "--engine", url).stdout
    assert second != first
    (told,) = lines_of(run("webhooks", "secret", "--engine", url, "--json"))
    assert (told["secret"], set(told)) == (second.strip(), {"secret", "created_at", "expires_at"})
    assert run("webhooks", "secret", "--tenant", "a b", "--engine", url).exit_code == Exit.usage


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """A job, an endpoint, a delivery."""
    url = url_in(tmp_path)
    publish(url)
    assert run("webhooks", "log", "job_none", "--engine", url).exit_code == Exit.not_found
    assert run("webhooks", "redeliver", "job_none", "--engine", url).exit_code == Exit.not_found
    assert "no endpoint" in run("webhooks", "silenced", "--engine", url, "--text").stdout
    refused = run("webhooks", "allow", "https://hooks.example/", "--engine", url)
    assert (refused.exit_code, "not silenced" in refused.stderr) == (Exit.usage, True)


def test_a_submit_names_its_webhook(tmp_path: Path) -> None:
    """By `--webhook`; one that can be none is refused."""
    url = url_in(tmp_path)
    publish(url)
    submit = ("jobs", "submit", "greet", "--input", '{"name": "Ada"}', "--engine", url, "--webhook")
    assert run(*submit, "ftp://hooks.example/").exit_code == Exit.usage
    (job,) = lines_of(run(*submit, "https://hooks.example/"))
    run("jobs", "cancel", job["id"], "--engine", url)
    (told,) = lines_of(run("webhooks", "log", job["id"], "--engine", url))
    assert (told["url"], told["type"]) == ("https://hooks.example/", "job.cancelled")


async def test_a_silenced_endpoint_is_listed_and_allowed_again(tmp_path: Path) -> None:
    """As one that answered 410 is."""
    engine = f"sqlite:{tmp_path / 'ropeway.db'}"
    with hooked() as hook, upped(tmp_path) as up:
        hook.status = 410
        async with Client(up.ready()["url"]) as client:
            job = await client.with_options(webhook=hook.url).submit("greet", name="Ada")
            assert (await delivered(client, job.id)).state is State.failed
            (told,) = lines_of(await asyncio.to_thread(run, "webhooks", "silenced", "--engine", engine))
            assert (told["url"], told["job_id"]) == (hook.url, job.id)
            assert (
                await asyncio.to_thread(run, "webhooks", "allow", hook.url, "--engine", engine)
            ).exit_code == Exit.ok
            hook.status = 204
            await client.redeliver(job.id, f"{job.id}-d0")
            assert (await delivered(client, job.id, 1)).state is State.succeeded
