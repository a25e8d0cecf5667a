"""What a Redis-protocol server says of itself (INFO), asked without a client library.

Standard library only: drivers may import this inside the peers' own environments.
"""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

__all__ = ["Calls", "ask", "calls", "commands", "cpu_s", "memory_bytes", "scripts"]

_TIMEOUT_S = 30.0
_CALLS = re.compile(r"calls=(\d+),usec=(\d+)")

Calls = dict[str, tuple[int, int]]
"""Of each command: how often it was called, and the us that the server was in it."""


def ask(url: str, command: str) -> str:
    """The text that answers an inline command. Raises OSError: nobody answers."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=_TIMEOUT_S) as wire:
        wire.sendall(f"{command}\r\n".encode())
        file = wire.makefile("rb")
        head = file.readline().decode().strip()
        return file.read(int(head[1:])).decode() if head.startswith("$") else head


def cpu_s(url: str) -> float:
    """User and system seconds that the server has used, all its threads."""
    facts = _info(url, "cpu")
    return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])


def memory_bytes(url: str) -> int:
    """What its data takes, as it counts itself."""
    return int(_info(url, "memory")["used_memory"])


def commands(url: str) -> int:
    """How many commands clients have sent it: those of scripts are not among them. This question is one."""
    return int(_info(url, "stats")["total_commands_processed"])


def calls(url: str) -> Calls:
    """What was called since CONFIG RESETSTAT, by command (`evalsha`, `hset`, `config|get`): scripts' own ones too."""
    found = {}
    for name, text in _info(url, "commandstats").items():
        match = _CALLS.match(text)
        assert match is not None, text
        found[name.removeprefix("cmdstat_")] = (int(match[1]), int(match[2]))
    return found


def scripts(counted: Calls) -> int:
    """How many scripts were run."""
    return sum(counted.get(name, (0, 0))[0] for name in ("eval", "evalsha", "eval_ro", "evalsha_ro"))


def _info(url: str, section: str) -> dict[str, str]:
    lines = ask(url, f"INFO {section}").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
