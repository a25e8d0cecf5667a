"""What `valkey-cli` does with one command, for machines that have only the server: for commands in docs and checks.

Knows -h, -p, -n and the password in REDISCLI_AUTH; an answer that is an error ends with code 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from valkey.connection import Connection
from valkey.exceptions import ValkeyError

__all__ = ["install"]

HERE = Path(__file__).resolve()


def install(folder: Path, port: int) -> None:
    """Put a `valkey-cli` into the folder that asks the server on this port unless it is told another."""
    program = folder / "valkey-cli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE}" -p {port} "$@"\n')
    program.chmod(0o755)


def main(arguments: list[str]) -> int:
    host, port, db = "127.0.0.1", 6379, 0
    while arguments and arguments[0].startswith("-"):
        option, value = arguments.pop(0), arguments.pop(0)
        match option:
            case "-h":
                host = value
            case "-p":
                port = int(value)
            case "-n":
                db = int(value)
            case _:
                print(f"{option} is not known here", file=sys.stderr)
                return 2
    connect: Any = Connection  # it has types, but not for being called
    connection = connect(host, port, db=db, password=os.environ.get("REDISCLI_AUTH"), decode_responses=True)
    try:
        connection.send_command(*arguments)
        _show(connection.read_response())
    except ValkeyError as error:
        print(f"(error) {error}")
        return 1
    finally:
        connection.disconnect()
    return 0


def _show(answer: Any) -> None:
    if isinstance(answer, list):
        for each in answer:
            _show(each)
    else:
        print("(nil)" if answer is None else answer)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
