"""One gateway process and thousands of readers: most of them idle, many busy, some that take nothing, and the drain."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = Path(__file__).with_name("crowd_program.py")

IDLE, ACTIVE = 10_000, 2_000
IDLE_JOBS = 100
TOKENS, PER_S = 20, 5.0
READER_KIB = 24  # 11 of a connection with its stream, the rest the kernel's and the allocator's slack; 15 is the target
STUCK = 100
PIECES, PIECE_CHARS = 400, 20_000  # 8 MB for each reader: more than the kernel holds for one that takes nothing
STUCK_KIB = 256


class Child:
    """A process of the program: lines of JSON out, orders in."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "it ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    def memory_kib(self, name: str) -> int:
        """`VmRSS`, what it has in memory; `VmHWM`, the most that it had since the last `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def child(role: str, **given: Any) -> AsyncIterator[Child]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, str(PROGRAM), role, json.dumps(given))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20)
    try:
        async with asyncio.timeout(300):  # on a machine with other things to do
            yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process has in memory is asked of /proc")
async def test_ten_thousand_wait_and_two_thousand_read(tmp_path: Path) -> None:
    """Every busy reader gets every token in order; the idle ones stay; a SIGTERM asks them all back and closes all."""
    idle, active = _fitting(IDLE, ACTIVE)
    task = {"task": "count", "input": {"tokens": TOKENS, "per_s": PER_S}}
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with child("gateway", url=url, active=active, idle=IDLE_JOBS, **task) as gateway:
        told = await gateway.told()
        before_kib = gateway.memory_kib("VmRSS")
        async with child("readers", idle_readers=idle, **told) as readers:
            assert await readers.told() == {"open": idle + active}
            assert (gateway.memory_kib("VmRSS") - before_kib) / (idle + active) < READER_KIB
            gateway.order("go")
            text = "".join(f"{n};" for n in range(TOKENS))
            assert await readers.told() == {"stories": {f"{text} job.succeeded": active}, "left": 0}
            gateway.process.send_signal(signal.SIGTERM)
            assert await readers.told() == {"stories": {"reconnect": idle}}
        assert await gateway.process.wait() == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process has in memory is asked of /proc")
async def test_readers_that_take_nothing_cost_little_and_are_let_go(tmp_path: Path) -> None:
    """A hundred of them, each with 8 MB to read: bounded while they are stuck, cut off after the deadline.

    Who was cut off resumes where he was: the log has everything.
    """
    task = {"task": "flood", "input": {"pieces": PIECES, "size": PIECE_CHARS}}
    url = f"sqlite:///{tmp_path}/jobs.db"
    options = {"write_deadline_s": 1.0}
    async with child("gateway", url=url, active=1, idle=0, **task, **options) as gateway:
        told = await gateway.told()
        gateway.order("go")
        base, path = f"http://127.0.0.1:{told['port']}", f"/v1/jobs/{told['active'][0]}"
        async with httpx.AsyncClient(base_url=base, timeout=60) as http:
            assert (await http.get(path, params={"wait": 60})).json()["state"] == "succeeded"
            gateway.forget_peak()
            before_kib = gateway.memory_kib("VmRSS")
            stuck = [_stuck_reader(told["port"], f"{path}/events") for _ in range(STUCK)]
            await _until_waiting(gateway, STUCK)
            await _until_waiting(gateway, 0)
            assert (gateway.memory_kib("VmHWM") - before_kib) / STUCK < STUCK_KIB
            first = _ids(await asyncio.to_thread(_all_of, stuck[0]))
            for one in stuck:
                one.close()
            rest = _ids((await http.get(f"{path}/events", headers={"last-event-id": first[-1]})).content)
        assert len(first) < PIECES, "it was cut off"
        seqs = [int(id_.partition("-")[2]) for id_ in first + rest]
        assert seqs == [1, *range(PIECES + 2)], "no gap, no repeat: queued, started, the pieces, the end"


def _fitting(idle: int, active: int) -> tuple[int, int]:
    """As many as this machine lets a process have files open, in proportion."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = min(1.0, (most - 200) / (idle + active))
    return int(idle * share), int(active * share)


def _stuck_reader(port: int, path: str) -> socket.socket:
    """A connection that asks for a stream and reads nothing."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    stuck.connect(("127.0.0.1", port))
    stuck.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return stuck


async def _until_waiting(gateway: Child, count: int) -> None:
    while True:
        gateway.order("waiting")
        if (await gateway.told())["waiting"] == count:
            return
        await asyncio.sleep(0.02)


def _all_of(stuck: socket.socket) -> bytes:
    """What the kernel had taken for a reader, now that it reads."""
    received = bytearray()
    try:
        while part := stuck.recv(1 << 20):
            received += part
    except ConnectionResetError:
        pass
    return bytes(received)


def _ids(stream: bytes) -> list[str]:
    """The ids of the events that came whole."""
    whole = stream[: stream.rfind(b"\n\n")]
    return [found.decode() for found in re.findall(rb"^id: (\S+)$", whole, re.MULTILINE)]
