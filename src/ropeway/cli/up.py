"""`ropeway up`, `api` and `worker`: the processes that serve.

`up` and `worker` are supervisors: they run no user code, keep their children running and their sessions alive, and see
at once when one dies. A child is this same program with the supervisor's line in its environment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ropeway.cli.engine import has_key, shown
from ropeway.cli.logs import LogLevel, start_logging
from ropeway.cli.loops import run_loop, tune_interpreter
from ropeway.cli.network import check_bind, probe_port
from ropeway.cli.options import Config, EngineUrl
from ropeway.cli.output import told_when_slow
from ropeway.cli.stores import scratch_store, tell_store
from ropeway.cli.target import check_target, load_app
from ropeway.cli.teaching import help_text
from ropeway.config import Settings, load_settings
from ropeway.domain.errors import InvalidRequest
from ropeway.domain.label import read_labels
from ropeway.domain.targets import AllowList
from ropeway.engines.base import Renewer
from ropeway.engines.connect import connect
from ropeway.runtime.child import ChildSpec
from ropeway.runtime.link import SupervisorLink
from ropeway.runtime.process.devices import dealt, named_devices
from ropeway.runtime.supervisor import Supervisor

__all__ = ["API_HELP", "UP_HELP", "WORKER_HELP", "api", "up", "worker"]

GRACE_MARGIN_S = 10.0  # a worker whose grace is over still has outcomes to commit and jobs to give back

Target = Annotated[str, typer.Argument(metavar="MODULE:APP", help="chatbot:app for `app = App()` in chatbot.py.")]
Host = Annotated[str | None, typer.Option(metavar="ADDRESS", help="[default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="0 takes a free one. [default: 8000]")]
Insecure = Annotated[bool | None, typer.Option("--insecure", help="Allow an address that others can reach.")]
Origins = Annotated[
    str | None, typer.Option(metavar="URL,URL", help="Pages that may call: https://app.example. [default: its own]")
]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Worker processes. [default: 1]")]
Blobs = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where files are: file:PATH, s3://BUCKET. [default: beside the sqlite file]"),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Async jobs at once in each. [default: 1000]")]
Threads = Annotated[int | None, typer.Option(min=1, help="Blocking jobs at once in each. [default: 256]")]
Children = Annotated[int | None, typer.Option(min=1, help="Processes of each isolated task. [default: cores]")]
Devices = Annotated[
    str | None, typer.Option(metavar="0,1", help="Devices, dealt out among the workers; auto or none. [default: auto]")
]
Labels = Annotated[
    str | None, typer.Option(metavar="K=V,K=V", help="What else the workers are, for tasks that need it.")
]
Queues = Annotated[str | None, typer.Option(metavar="A,B", help="Queues to serve, in order. [default: all]")]
Grace = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="For running jobs at a stop. [default: 30]")
]

UP_HELP = help_text(
    "Serve an application: a gateway and workers, on one machine, in one command.",
    "A supervisor keeps one gateway and N workers running on the same engine; one that dies is started again, and its "
    "jobs run elsewhere at once. Ctrl-C or SIGTERM drains: running jobs have --grace to finish, the rest goes back. "
    "On memory: it is one process, and jobs live as long as it does.",
    "On a terminal it shows what to try; on a pipe it writes one line of JSON once it serves.",
    examples=(
        "ropeway up chatbot:app",
        "ropeway up chatbot:app --workers 4 --port 8080",
        "ropeway up chatbot:app --engine sqlite:///var/lib/ropeway.db --threads 1000",
        "ropeway up chatbot:app --engine redis://127.0.0.1:6379",
    ),
)
API_HELP = help_text(
    "Serve the HTTP API alone; workers run elsewhere, on the same engine.",
    "It knows the tasks from what the workers announce. With MODULE:APP it imports them itself: inputs are then "
    "checked by their own types too, and jobs are accepted before any worker has started.",
    examples=(
        "ropeway api",
        "ropeway api chatbot:app --port 8080",
        "ropeway api chatbot:app --engine redis://valkey:6379    # as many as you like, on many machines",
    ),
)
WORKER_HELP = help_text(
    "Run jobs, without an API; start as many as you like on the same engine.",
    examples=(
        "ropeway worker chatbot:app",
        "ropeway worker chatbot:app --workers 4 --queues chat,gpu --concurrency 1000",
        "ropeway worker chatbot:app --engine redis://valkey:6379",
    ),
)


def up(
    target: Target,
    engine: EngineUrl = None,
    blobs: Blobs = None,
    host: Host = None,
    port: Port = None,
    insecure: Insecure = None,
    origins: Origins = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    threads: Threads = None,
    children: Children = None,
    devices: Devices = None,
    labels: Labels = None,
    queues: Queues = None,
    grace: Grace = None,
    log_level: LogLevel = "info",
    config: Config = None,
) -> None:
    server = {"host": host, "port": port, "insecure": insecure, "origins": _named(origins)}
    flags: dict[str, Any] = {"engine": engine, "blobs": blobs, "server": server}
    settings = load_settings(
        flags | _worker_flags(workers, concurrency, threads, queues, grace, children, devices, labels), path=config
    )
    _check_bind(settings)
    check_target(target)
    start_logging(log_level, "up")
    tell_store(settings)
    free_port = probe_port(settings.server.host, settings.server.port)
    if _in_memory(settings.engine):
        _up_in_memory(target, settings)
        return
    family = _Family(settings, log_level, config)
    raise typer.Exit(family.supervise([family.gateway(free_port), *family.workers(target)]))


def api(
    target: Annotated[str | None, typer.Argument(metavar="[MODULE:APP]", help="Import the tasks too.")] = None,
    engine: EngineUrl = None,
    blobs: Blobs = None,
    host: Host = None,
    port: Port = None,
    insecure: Insecure = None,
    origins: Origins = None,
    log_level: LogLevel = "info",
    config: Config = None,
    await_tasks: Annotated[bool, typer.Option("--await-tasks", hidden=True)] = False,
) -> None:
    server = {"host": host, "port": port, "insecure": insecure, "origins": _named(origins)}
    flags: dict[str, Any] = {"engine": engine, "blobs": blobs, "server": server}
    settings = load_settings(flags, path=config)
    _refuse_memory(settings.engine)
    link = SupervisorLink.from_environment()
    if link is None:  # else the supervisor has looked
        _check_bind(settings)
    app = None if target is None else load_app(target)
    start_logging(log_level, "gateway")
    if link is None:
        tell_store(settings)
    tune_interpreter()
    from ropeway.cli.serving import (
        run_gateway_process,
    )  # a gateway's parts take 0.2 s to import: no other command waits

    run_loop(run_gateway_process(settings, app, link, await_tasks=await_tasks))


def worker(
    target: Target,
    engine: EngineUrl = None,
    blobs: Blobs = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    threads: Threads = None,
    children: Children = None,
    devices: Devices = None,
    labels: Labels = None,
    queues: Queues = None,
    grace: Grace = None,
    name: Annotated[str, typer.Option(help="For people, in jobs and lists. [default: host and process]")] = "",
    log_level: LogLevel = "info",
    config: Config = None,
) -> None:
    flags = {"engine": engine, "blobs": blobs} | _worker_flags(
        workers, concurrency, threads, queues, grace, children, devices, labels
    )
    settings = load_settings(flags, path=config)
    _refuse_memory(settings.engine)
    link = SupervisorLink.from_environment()
    if link is None:
        check_target(target)
        start_logging(log_level, "workers")
        tell_store(settings)
        family = _Family(settings, log_level, config)
        raise typer.Exit(family.supervise(family.workers(target, name)))
    app = load_app(target)
    start_logging(log_level, name or "worker")
    tune_interpreter()
    from ropeway.cli.serving import run_worker_process, worker_options

    options = worker_options(settings.worker, name)
    run_loop(run_worker_process(app, settings, options, link))


def _up_in_memory(target: str, settings: Settings) -> None:
    if settings.worker.processes > 1:
        raise InvalidRequest("memory: is one process: --workers needs sqlite: or redis:")
    app = load_app(target)
    tune_interpreter()
    with scratch_store(settings) as blobs:
        settings = msgspec.structs.replace(settings, blobs=blobs)
        from ropeway.cli.serving import run_all_in_one

        run_loop(run_all_in_one(app, connect(settings.engine), settings))


class _Family:
    """A supervisor's children: this same program, with every setting resolved into flags."""

    def __init__(self, settings: Settings, log_level: str, config: Path | None) -> None:
        self._settings = settings
        self._common = ("--log-level", log_level)
        self._environment = {"ROPEWAY_ENGINE": settings.engine}  # its password is not for the list of processes
        if settings.blobs is not None:
            self._environment["ROPEWAY_BLOBS"] = settings.blobs
        if config is not None:
            self._environment["ROPEWAY_CONFIG"] = str(config.absolute())

    def gateway(self, port: int) -> ChildSpec:
        server = self._settings.server
        flags = ["--host", server.host, "--port", str(port), "--await-tasks"]
        flags += ["--insecure"] if server.insecure else []
        flags += ["--origins", ",".join(server.origins)] if server.origins else []
        return self._child("gateway", "api", *flags)

    def workers(self, target: str, name: str = "") -> list[ChildSpec]:
        settings = self._settings.worker
        flags = ["--concurrency", str(settings.concurrency), "--threads", str(settings.threads)]
        flags += ["--grace", str(settings.grace_s)]
        flags += ["--queues", ",".join(settings.queues)] if settings.queues else []
        flags += ["--children", str(settings.children)] if settings.children else []
        flags += ["--labels", ",".join(read_labels(settings.labels))] if settings.labels else []
        shares = dealt(named_devices(settings.devices), settings.processes)
        return [
            self._child(
                f"worker {n}",
                "worker",
                target,
                *flags,
                *("--devices", ",".join(share) or "none"),
                *(["--name", f"{name}-{n}"] if name else []),
            )
            for n, share in enumerate(shares, 1)
        ]

    def supervise(self, children: list[ChildSpec]) -> int:
        """Run them until all is over; the exit code."""
        renewer = _renewer(self._settings.engine)
        return Supervisor(children, renewer, grace_s=self._settings.worker.grace_s + GRACE_MARGIN_S).run()

    def _child(self, name: str, command: str, *arguments: str) -> ChildSpec:
        program = (sys.executable, "-m", "ropeway", command)
        return ChildSpec(name, (*program, *arguments, *self._common), self._environment)


def _renewer(url: str) -> Renewer:
    """A renewer on the store, which is made first, and opened once: what is wrong with it is told once, and here."""
    engine = connect(url)

    async def make() -> None:
        async with told_when_slow(f"no answer yet from {engine.info.url}"):
            await engine.open()
        await engine.shut()

    run_loop(make())
    return engine.renewer()


def _worker_flags(
    workers: int | None,
    concurrency: int | None,
    threads: int | None,
    queues: str | None,
    grace: float | None,
    children: int | None,
    devices: str | None,
    labels: str | None,
) -> dict[str, Any]:
    return {
        "worker": {
            "processes": workers,
            "concurrency": concurrency,
            "threads": threads,
            "queues": _named(queues),
            "grace_s": grace,
            "children": children,
            "devices": _named(devices),
            "labels": _named(labels),
        }
    }


def _named(text: str | None) -> list[str] | None:
    """Names with commas between."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _check_bind(settings: Settings) -> None:
    AllowList(settings.webhooks.allow)  # what is wrong with it is told here, and once
    server, engine = settings.server, settings.engine
    check_bind(server.host, server.insecure, lambda: has_key(engine), engine=shown(engine))


def _in_memory(url: str) -> bool:
    return url.partition(":")[0] == "memory"


def _refuse_memory(url: str) -> None:
    if _in_memory(url):
        raise InvalidRequest(
            "memory: lives in one process: `ropeway up MODULE:APP --engine memory:` runs all of it there"
        )
