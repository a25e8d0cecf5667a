"""Real processes that are killed and started again: gateways, workers with a supervisor and without, and a Valkey."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from server import await_end

from servers import HOST, Server, free_port, until

__all__ = ["Fleet", "Program"]

HERE = Path(__file__).parent
END_S = 60.0


class Program:
    """One program, in all its lives."""

    def __init__(self, name: str, argv: list[str], environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self._argv = argv
        self._environment = {**os.environ, **environment}
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin a life, unless it lives."""
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._argv, env=self._environment, stdout=log, stderr=log)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def children(self) -> list[int]:
        """The pids of its children."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def kill(self) -> None:
        """kill -9; its children, if any, are left to themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def check(self) -> None:
        """Raises AssertionError, with what was logged, when it has ended by itself."""
        assert self._process is not None and self._process.poll() is None, f"{self.name} ended: {self.log[-3000:]}"

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(timeout=END_S)
        self._process = None
        return code

    @property
    def log(self) -> str:
        return self._log.read_text()


class Gateway(Program):
    """`ropeway api` on a port that stays its own."""

    def __init__(self, name: str, engine: str, environment: dict[str, str], folder: Path) -> None:
        port = free_port()
        argv = [sys.executable, "-m", "ropeway", "api", "victim:app", "--engine", engine, "--port", str(port)]
        super().__init__(name, argv, environment, folder)
        self.url = f"http://{HOST}:{port}"

    @property
    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


class Fleet:
    """A Valkey that syncs every write, two gateways, a worker by itself, and a supervisor with two.

    `workers_killed` names those whose death may have cost a running job an attempt, as the engine knows them.
    """

    def __init__(self, folder: Path) -> None:
        self.server = Server()
        self.runs = folder / "runs.txt"
        self.runs.touch()
        self.workers_killed: set[int] = set()
        environment = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "VICTIM_RUNS": str(self.runs)}
        engine = self.server.url
        self.gateways = [Gateway(f"gateway-{n}", engine, environment, folder) for n in (1, 2)]
        self.lone = Program("lone", [sys.executable, str(HERE / "lone_worker.py"), engine], environment, folder)
        sizes = ["--workers", "2", "--concurrency", "50", "--threads", "2"]
        supervised = [sys.executable, "-m", "ropeway", "worker", "victim:app", *sizes, "--engine", engine]
        self.supervisor = Program("supervisor", supervised, environment, folder)
        self._orphans: set[int] = set()

    def start(self) -> None:
        """Start whatever does not run, and wait until the gateways answer."""
        if not self.server.is_running:
            self.server.start()
        for program in self.programs:
            program.start()
        self.await_gateways()

    @property
    def programs(self) -> list[Program]:
        return [*self.gateways, self.lone, self.supervisor]

    def await_gateways(self) -> None:
        for gateway in self.gateways:
            until(partial(self._is_up, gateway), f"{gateway.name} answers", END_S)

    def _is_up(self, gateway: Gateway) -> bool:
        gateway.check()
        return gateway.answers

    # -- who dies

    def kill_gateway(self, n: int) -> None:
        """One gateway, which comes back at once."""
        gateway = self.gateways[n % len(self.gateways)]
        gateway.kill()
        gateway.start()

    def kill_lone_worker(self) -> None:
        """The worker that nobody watches, and another takes its place."""
        if self.lone.pid is not None:
            self.workers_killed.add(self.lone.pid)
        self.lone.kill()
        self.lone.start()

    def kill_supervised_worker(self, n: int) -> None:
        """A worker under its supervisor, which starts it again."""
        workers = self.supervisor.children
        if workers:
            pid = workers[n % len(workers)]
            self.workers_killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """The supervisor; its workers drain by themselves, while another one starts with new ones.

        Where they cannot give back what they run, because the server is away too, it is as if they had been killed.
        """
        orphans = self.supervisor.children
        self.workers_killed.update(orphans)
        self._orphans.update(orphans)
        self.supervisor.kill()
        self.supervisor.start()

    def kill_all(self) -> None:
        """Every process at one moment, the server too."""
        children = self.supervisor.children
        self.workers_killed.update(pid for pid in (*children, self.lone.pid) if pid is not None)
        for program in self.programs:
            program.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.server.kill()

    def stop(self) -> list[int]:
        """Drain everything; the exit codes. The server goes with its data."""
        codes = [program.stop() for program in (self.lone, self.supervisor, *self.gateways)]
        for pid in self._orphans:
            await_end(pid)
        self.server.delete()
        return codes
