"""A real `ropeway up`, in processes of its own, to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from servers import free_port

__all__ = ["Server"]

START_LIMIT_S = 60.0


class Server:
    """`ropeway up` on one file and one port, started as often as it is killed."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.file = folder / "jobs.db"
        self.runs = folder / "runs.txt"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until its gateway answers."""
        command = [sys.executable, "-m", "ropeway", "up", "victim:app", "--engine", f"sqlite:///{self.file}"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "VICTIM_RUNS": str(self.runs)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)], env=environment, stdout=log, stderr=log
            )
        self.await_ready()

    def await_ready(self) -> None:
        """Until the gateway answers. Fails, with what was logged, when the server has ended."""
        assert self._process is not None
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.05)
            assert self._process.poll() is None, self._log.read_text()[-4000:]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    @property
    def pids(self) -> dict[str, int]:
        """The processes: the supervisor, and its children by what they do."""
        assert self._process is not None
        found = {"supervisor": self._process.pid}
        for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                found["worker" if b"worker" in words else "gateway"] = int(child)
        return found

    def kill(self, who: str) -> None:
        """SIGKILL one process, or `everything`. Those that it leaves behind without a supervisor are waited for."""
        assert self._process is not None
        pids = self.pids
        doomed = list(pids.values()) if who == "everything" else [pids[who]] if who in pids else []
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if who in ("everything", "supervisor"):
            self._process.wait(timeout=START_LIMIT_S)
            for pid in set(pids.values()) - {self._process.pid}:
                await_end(pid)

    @property
    def runs_seen(self) -> int:
        """How often a task's code began."""
        return len(self.runs.read_text().splitlines())

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(timeout=START_LIMIT_S) == 0, self._log.read_text()[-4000:]


def await_end(pid: int) -> None:
    """Until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    ended, _, _ = select.select([descriptor], [], [], START_LIMIT_S)
    os.close(descriptor)
    assert ended, f"process {pid} outlived its supervisor by {START_LIMIT_S:.0f} s"
