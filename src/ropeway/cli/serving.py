"""What the processes do that serve: a gateway, a worker, or both at once on an engine in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from ropeway.cli.banner import known_tasks, show_ready
from ropeway.cli.network import cannot_listen, is_loopback, warn_if_open
from ropeway.cli.output import told_when_slow
from ropeway.config import Settings, WebhookSettings, WorkerSettings
from ropeway.domain.errors import EngineUnavailable
from ropeway.domain.label import read_labels
from ropeway.domain.targets import AllowList
from ropeway.engines.base import Engine
from ropeway.engines.connect import connect
from ropeway.operations.webhooks import with_deliveries, with_webhooks
from ropeway.runtime import App, Worker, WorkerOptions, run_worker
from ropeway.runtime.link import SupervisorLink
from ropeway.runtime.process.devices import named_devices
from ropeway.serving import Gateway, GatewayOptions, hosts_for
from ropeway.serving.server import Server, serve

__all__ = ["run_all_in_one", "run_gateway_process", "run_worker_process", "worker_options"]

log = logging.getLogger("ropeway.cli")

OPEN_AGAIN_S = 1.0


def worker_options(settings: WorkerSettings, name: str = "") -> WorkerOptions:
    """The worker's own options, from the settings."""
    return WorkerOptions(
        name=name,
        queues=settings.queues,
        concurrency=settings.concurrency,
        threads=settings.threads,
        grace_s=settings.grace_s,
        children=settings.children,
        devices=named_devices(settings.devices),
        labels=read_labels(settings.labels),
    )


async def run_worker_process(app: App, settings: Settings, options: WorkerOptions, link: SupervisorLink | None) -> None:
    """A worker until it is told to drain, or its supervisor is gone."""
    async with _opened(connect(settings.engine), link) as engine:
        await run_worker(*_delivering(app, engine, options, settings.webhooks), link=link, blobs=settings.blobs)


def _delivering(
    app: App, engine: Engine, options: WorkerOptions, webhooks: WebhookSettings
) -> tuple[App, Engine, WorkerOptions]:
    """What a worker runs, with the deliveries of webhooks, if it is to make them."""
    if not webhooks.deliver:
        return app, engine, options
    options = msgspec.structs.replace(options, queues=with_deliveries(options.queues))
    return with_webhooks(app, engine, AllowList(webhooks.allow)), engine, options


async def run_gateway_process(
    settings: Settings, app: App | None, link: SupervisorLink | None, *, await_tasks: bool
) -> None:
    """A gateway until it is told to drain, or its supervisor is gone.

    With an `app` it publishes the tasks and checks inputs by their types too. `await_tasks`: it serves at once, and
    says so when there is something to submit.
    """
    async with _opened(connect(settings.engine), link) as engine:
        if app is not None:
            await engine.publish(app.cards)
        # A service manager may send its SIGTERM to the whole group, and the supervisor passes on its own: one wish.
        with _asked_to_stop(lasting=link is not None) as stopping:
            if link is not None:
                link.when_gone(_from_thread(stopping.set))
            await _serve(engine, settings, app, stopping, link, await_tasks=await_tasks)


async def run_all_in_one(app: App, engine: Engine, settings: Settings) -> None:
    """Gateway and worker in this loop, until told to drain; told again, they end at once."""
    async with _opened(engine):
        runs = _delivering(app, engine, worker_options(settings.worker), settings.webhooks)
        worker = Worker(*runs, blobs=settings.blobs)
        await engine.publish(app.cards)
        with _asked_to_stop(worker.drain, worker.end_now) as stopping:
            working = asyncio.ensure_future(worker.run())
            working.add_done_callback(lambda _: stopping.set())
            try:
                await _serve(engine, settings, app, stopping, None, await_tasks=False)
            finally:
                worker.drain()
                await working


async def _serve(
    engine: Engine,
    settings: Settings,
    app: App | None,
    stopping: asyncio.Event,
    link: SupervisorLink | None,
    *,
    await_tasks: bool,
) -> None:
    checks = {} if app is None else {name: task.check for name, task in app.tasks.items()}
    host, port = settings.server.host, settings.server.port
    gateway = Gateway(engine, _gateway_options(settings), checks, blobs=settings.blobs)
    gateway.when_broken = stopping.set
    telling: list[asyncio.Future[None]] = []

    def ready(server: Server) -> None:
        if link is not None:
            link.ready()
        telling.append(asyncio.ensure_future(_tell(server.url, engine, await_tasks)))
        telling.append(asyncio.ensure_future(warn_if_open(settings.server, engine)))

    try:
        await serve(gateway, host, port, stopping=stopping, on_ready=ready)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    finally:
        for task in telling:
            task.cancel()
    if gateway.broken is not None:
        raise gateway.broken


def _gateway_options(settings: Settings) -> GatewayOptions:
    server = settings.server
    return GatewayOptions(
        allowed_hosts=hosts_for(server.host),
        allowed_origins=server.origins,
        requires_key=not (server.insecure or is_loopback(server.host)),
        webhook_allow=settings.webhooks.allow,
        max_file_bytes=server.max_file_bytes,
        max_tenant_file_bytes=server.max_tenant_file_bytes,
    )


def _from_thread(call: Callable[[], None]) -> Callable[[], None]:
    """`call`, to be called from another thread than this loop's."""
    loop = asyncio.get_running_loop()

    def called() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: too late to matter
            loop.call_soon_threadsafe(call)

    return called


async def _tell(url: str, engine: Engine, await_tasks: bool) -> None:
    cards = await known_tasks(engine) if await_tasks else await engine.tasks()
    show_ready(url, engine.info, cards)


@contextlib.asynccontextmanager
async def _opened(engine: Engine, link: SupervisorLink | None = None) -> AsyncIterator[Engine]:
    """The engine, open within. A supervisor opened it before it started us: then what fails now will pass."""
    if link is None:
        async with told_when_slow(f"no answer yet from {engine.info.url}"):
            await engine.open()
    else:
        await _open_persistently(engine)
    try:
        yield engine
    finally:
        await engine.shut()


async def _open_persistently(engine: Engine) -> None:
    """Try until it is there. A signal ends the process meanwhile: nothing has begun."""
    while True:
        try:
            await engine.open()
            return
        except EngineUnavailable as error:
            log.warning("cannot start yet: %s", error)
        await asyncio.sleep(OPEN_AGAIN_S)


@contextlib.contextmanager
def _asked_to_stop(
    first: Callable[[], None] = lambda: None, second: Callable[[], None] | None = None, *, lasting: bool = False
) -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets, calling `first`; the next one calls `second`, and one after the
    last of these ends the process as it would without us. `lasting`: not so another SIGTERM."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    steps = [first] if second is None else [first, second]
    watched = (signal.SIGTERM, signal.SIGINT)

    def heard() -> None:
        asked.set()
        if steps:
            steps.pop(0)()
        if not steps:
            let_go(*watched[lasting:])

    def let_go(*numbers: signal.Signals) -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in watched:
        loop.add_signal_handler(number, heard)
    try:
        yield asked
    finally:
        let_go(*watched)
