"""The processes of deploy/compose.yaml, with its own commands, on a Valkey with its own configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_support import DEPLOY, Service, read_compose

import valkey_cli
from ropeway.client import Client
from servers import free_port, valkey_binary

PASSWORD = "l3tm31n"
UP_S = 60.0

pytestmark = pytest.mark.slow


class Stack:
    """The services, as processes: addresses and ports are replaced by free ones here, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole, self._services = read_compose({"VALKEY_PASSWORD": PASSWORD})
        self.ports = {name: free_port() for name in ("valkey", "gateway-1", "gateway-2")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._configuration = self._write_configuration()
        valkey_cli.install(folder, self.ports["valkey"])
        (folder / "valkey-server").symlink_to(valkey_binary())

    def start(self, name: str, service: str = "") -> None:
        """Start a service under this name."""
        found = self._services[service or name]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                found.program(self._replaced(name)),
                cwd=self._folder if name == "valkey" else DEPLOY,
                env=self._environment(found),
                stdout=log,
                stderr=log,
            )

    def await_healthy(self, name: str) -> None:
        """Until the service's own health check is content."""
        until = time.monotonic() + UP_S
        while not self.is_healthy(name):
            assert self._processes[name].poll() is None, self.log(name)
            assert time.monotonic() < until, self.log(name)

    def is_healthy(self, name: str) -> bool:
        found = self._services[name]
        check = found.check(self._replaced(name))
        return subprocess.run(check, env=self._environment(found), capture_output=True, check=False).returncode == 0

    def stop(self, name: str) -> int:
        """SIGTERM, as Compose sends; its exit code."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=UP_S)

    def commands(self) -> list[str]:
        """What anybody on this machine may read of the processes and their children."""
        pids = [process.pid for process in self._processes.values()]
        for pid in tuple(pids):
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-4000:]

    def _write_configuration(self) -> str:
        """The Valkey's configuration file, for this machine. Once: a server may be reading it."""
        content: str = self._whole["configs"]["valkey"]["content"]
        file = self._folder / "valkey.conf"
        file.write_text(content.replace("/data", str(self._folder)) + f"port {self.ports['valkey']}\nbind 127.0.0.1\n")
        return str(file)

    def _replaced(self, name: str) -> dict[str, str]:
        target = str(self._services["valkey"].raw["configs"][0]["target"])
        here = {"0.0.0.0": "127.0.0.1", target: self._configuration}
        return {**here, "8000": str(self.ports[name])} if name in self.ports and name != "valkey" else here

    def _environment(self, service: Service) -> dict[str, str]:
        own = {name: text for name, text in os.environ.items() if not name.startswith("ROPEWAY_")}
        path = f"{self._folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        told = {
            name: text.replace("@valkey:6379", f"@127.0.0.1:{self.ports['valkey']}").replace(
                "file:///files", f"file://{self._folder}/files"
            )
            for name, text in service.environment.items()
        }
        return {**own, **told, "PATH": path}


@pytest.fixture
def stack(home: Path) -> Iterator[Stack]:
    stack = Stack(home)
    try:
        yield stack
    finally:
        stack.close()


async def test_the_stack_serves_and_stops(stack: Stack) -> None:
    """Both gateways become healthy, a stream that began at one is read on at the other, and all of it drains. The
    password stands in no process' command line."""
    stack.start("valkey")
    stack.await_healthy("valkey")
    for gateway in ("gateway-1", "gateway-2"):
        stack.start(gateway)
    for name in ("worker-1", "worker-2", "worker-3"):
        stack.start(name, "worker")
    for gateway in ("gateway-1", "gateway-2"):
        stack.await_healthy(gateway)
    first, second = (f"http://127.0.0.1:{stack.ports[name]}" for name in ("gateway-1", "gateway-2"))
    async with Client(first) as one, Client(second) as other:
        job = await one.submit("chat", question="why?", words=5)
        seen = [event.id async for event in job.events()]
        assert [event.id async for event in other.job(job.id).events(after=seen[2])] == seen[3:]
        assert await other.result(job.id, timeout=UP_S) == "why? " * 5
        assert (await other.get(job.id)).durability == "disk"
        file = await one.upload(b"tile", filename="tile.tif")
        assert await other.files.read(file) == b"tile"
        large = await one.submit("chat", question="x" * 100_000, words=3)
        assert await other.result(large.id, timeout=UP_S) == ("x" * 100_000 + " ") * 3, "from its file"
        assert "$file" in str((await other.get(large.id)).output)
        blocking = [await one.submit("report", rows=n) for n in range(6)]
        assert [await other.result(job.id, timeout=UP_S) for job in blocking] == [n * n for n in range(6)]
    assert not [command for command in stack.commands() if PASSWORD in command]
    names = ("gateway-1", "gateway-2", "worker-1", "worker-2", "worker-3", "valkey")
    assert {name: stack.stop(name) for name in names} == dict.fromkeys(names, 0), stack.log("worker-1")


def test_a_check_sees_what_is_down(stack: Stack) -> None:
    """A gateway without its Valkey is not healthy, and a Valkey that asks for another password is not either."""
    assert not stack.is_healthy("valkey")
    stack.start("valkey")
    stack.await_healthy("valkey")
    stack.start("gateway-1")
    stack.await_healthy("gateway-1")
    stack.stop("valkey")
    until = time.monotonic() + UP_S
    while stack.is_healthy("gateway-1"):
        assert time.monotonic() < until, stack.log("gateway-1")
