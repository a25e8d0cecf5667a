"""The processes of deploy/kubernetes, with their own commands, on its Valkey; and the Valkey of the Fly files."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from compose_support import DEPLOY
from manifest_support import fly, guide_commands, manifest

from ropeway.client import Client
from ropeway.engines.connect import connect
from servers import free_port, until, valkey_binary

PASSWORD = "l3tm31n"
UP_S = 60.0


class Cluster:
    """Some processes of this machine in the place of pods: addresses and paths are replaced, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.valkey_port, self.port = free_port(), free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "valkey-server").symlink_to(valkey_binary())
        entry = folder / "docker-entrypoint.sh"
        entry.write_text('#!/bin/sh\nexec "$@"\n')
        entry.chmod(0o755)

    @property
    def engine(self) -> str:
        """As the guide has it in the secret, for the Valkey here."""
        return f"valkey://:{PASSWORD}@127.0.0.1:{self.valkey_port}?durability=disk"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, words: Sequence[str]) -> None:
        own = {key: text for key, text in os.environ.items() if not key.startswith("ROPEWAY_")}
        path = f"{self.folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        told = {"ROPEWAY_ENGINE": self.engine, "ROPEWAY_LOG": "info", "VALKEY_PASSWORD": PASSWORD, "PATH": path}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self.here(words), cwd=DEPLOY, env=own | told, stdout=log, stderr=log
            )

    def here(self, words: Sequence[str]) -> list[str]:
        """A command as it is started here."""
        replaced = {"0.0.0.0": "127.0.0.1", "8000": str(self.port)}
        words = [replaced.get(word, word) for word in words]
        return [sys.executable, "-m", "ropeway", *words[1:]] if words[0] == "ropeway" else words

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=UP_S)

    def is_ready(self) -> bool:
        """What the readiness probe asks. Raises OSError for any other answer, and for none."""
        (container,) = manifest("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
        path = container["readinessProbe"]["httpGet"]["path"]
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as reply:
            return bool(reply.status == 200)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-4000:]

    def made_key(self, *words: str) -> str:
        """What `ropeway keys create …` writes, run beside a worker as the guide does."""
        environment = os.environ | {"ROPEWAY_ENGINE": self.engine}
        made = subprocess.run(self.here(words), env=environment, capture_output=True, timeout=UP_S, check=True)
        return made.stdout.decode().strip()


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home)
    try:
        yield cluster
    finally:
        cluster.close()


def command_of(kind: str, name: str) -> list[str]:
    (container,) = manifest(kind, name)["spec"]["template"]["spec"]["containers"]
    words: list[str] = container["command"]
    return words


async def proves_disk(url: str) -> bool:
    """Whether a Valkey is there, and does what the engine asks of class `disk`."""
    engine = connect(url)
    await engine.open()
    await engine.shut()
    return engine.info.durability == "disk"


async def test_the_cluster_serves_and_tells_keda(cluster: Cluster) -> None:
    """The gateway is ready before a worker is there. What KEDA asks it, with a key as the guide makes it and no lesser
    one, are numbers: the jobs that wait, and those that run. A worker does them, and all of it drains."""
    settings = cluster.folder / "valkey.conf"
    written = manifest("ConfigMap", "valkey")["data"]["valkey.conf"].replace("/data", str(cluster.folder))
    settings.write_text(f"{written}port {cluster.valkey_port}\nbind 127.0.0.1\n")
    replaced = {"/etc/valkey/valkey.conf": str(settings), "$(VALKEY_PASSWORD)": PASSWORD}
    cluster.start("valkey", [replaced.get(word, word) for word in command_of("StatefulSet", "valkey")])
    assert await proves_disk(cluster.engine), cluster.log("valkey")

    create = next(words for words in guide_commands() if words[1:4] == ["keys", "create", "keda"])
    token = cluster.made_key(*create)
    cluster.start("gateway", command_of("Deployment", "gateway"))
    async with httpx.AsyncClient(base_url=cluster.url) as http:
        until(cluster.is_ready, "the gateway is ready", UP_S)
        async with Client(cluster.engine) as client:
            jobs = [await client.submit("report", rows=n) for n in range(3)]
            assert [await figure(http, name, token) for name in ("queued", "running")] == [3, 0]
            lesser = [(await client.keys.create(scope, scopes=[scope])).key for scope in create[-1].split(",")]
            assert [(await asked(http, "queued", key)).status_code for key in (*lesser, "")] == [403, 403, 401]

            cluster.start("worker", command_of("Deployment", "worker"))
            assert [await client.result(job.id, timeout=UP_S) for job in jobs] == [0, 1, 4]
        assert [await figure(http, name, token) for name in ("queued", "running")] == [0, 0]
    names = ("gateway", "worker", "valkey")
    assert {name: cluster.stop(name) for name in names} == dict.fromkeys(names, 0), cluster.log("worker")


async def asked(http: httpx.AsyncClient, name: str, token: str) -> httpx.Response:
    """As KEDA asks for a trigger."""
    (trigger,) = [one for one in manifest("ScaledObject", "worker")["spec"]["triggers"] if one["name"] == name]
    url = urlsplit(trigger["metadata"]["url"])
    assert trigger["metadata"]["authMode"] == "bearer"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return await http.get(f"{url.path}?{url.query}", headers=headers)


async def figure(http: httpx.AsyncClient, name: str, token: str) -> int:
    """What KEDA finds where the trigger says that it is."""
    (trigger,) = [one for one in manifest("ScaledObject", "worker")["spec"]["triggers"] if one["name"] == name]
    reply = await asked(http, name, token)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    for part in trigger["metadata"]["valueLocation"].split("."):
        found = found[part]
    assert isinstance(found, int)
    return found


async def test_the_valkey_of_fly_syncs_what_it_takes(cluster: Cluster) -> None:
    """Its command is one that a shell understands, with the password out of the secret, and is of class `disk`."""
    shell, option, line = shlex.split(fly("fly.valkey.toml")["processes"]["valkey"])
    line = line.replace("/data", str(cluster.folder))
    cluster.start("valkey", [shell, option, f"{line} --bind 127.0.0.1 --port {cluster.valkey_port}"])
    assert await proves_disk(cluster.engine), cluster.log("valkey")
    with pytest.raises(Exception, match=r"(?i)password|auth"):
        await proves_disk(cluster.engine.replace(PASSWORD, "another"))
    assert cluster.stop("valkey") == 0
