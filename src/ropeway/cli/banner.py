"""What a gateway says once it serves: where, on what, and a command to try."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.table import Table

from ropeway.cli.output import out, write_line
from ropeway.domain.worker import TaskCard
from ropeway.engines.base import Engine, EngineInfo

__all__ = ["Ready", "example_input", "known_tasks", "show_ready"]

LOOK_AGAIN_S = 0.05
NAMES_SHOWN = 8


class Ready(msgspec.Struct, frozen=True):
    """A gateway that serves, as one line of JSON when nobody is looking."""

    url: str
    engine: str
    durability: str
    tasks: list[str]
    ready: bool = True


async def known_tasks(engine: Engine) -> list[TaskCard]:
    """The catalogue, as soon as a worker has announced any of it."""
    with engine.listen("lifecycle") as hints:  # no hint tells of the catalogue; a job that moves hints at a worker
        while not (cards := await engine.tasks()):
            await hints.wait(LOOK_AGAIN_S)
    return cards


def show_ready(url: str, info: EngineInfo, cards: Sequence[TaskCard]) -> None:
    """Tell that the gateway at `url` serves: a table on a terminal, else a line."""
    if not sys.stdout.isatty():
        write_line(Ready(url, info.url, info.durability, [card.name for card in cards]))
        return
    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]jobs[/bold]", f"{url}/v1/jobs")
    table.add_row("[bold]API[/bold]", f"{url}/docs")
    table.add_row("[bold]engine[/bold]", f"{info.url} (a 202 means: {_MEANINGS[info.durability]})")
    if cards:
        table.add_row("[bold]tasks[/bold]", _names(cards))
    console = out()
    console.print()
    console.print(table)
    if cards:
        console.print("\n[bold]try[/bold]")
        console.print(_command(url, cards[0]), markup=False, soft_wrap=True)
    console.print()


_MEANINGS = {
    "disk": "it is on the disk",
    "window": "it is on the disk within a second or two",
    "memory": "it is in this process's memory",
}


def _names(cards: Sequence[TaskCard]) -> str:
    names = [card.name for card in cards[:NAMES_SHOWN]]
    return ", ".join(names) + (f" and {len(cards) - len(names)} more" if len(cards) > len(names) else "")


def _command(url: str, card: TaskCard) -> str:
    body = {"task": card.name, "input": example_input(msgspec.json.decode(card.input_schema))}
    accept = " -H 'Accept: text/event-stream' -N" if card.streams else " -H 'Prefer: wait=10'"
    data = shlex.quote(msgspec.json.encode(body).decode())
    return f"curl {url}/v1/jobs -H 'Content-Type: application/json'{accept} \\\n  -d {data}"


def example_input(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Any:
    """A small value for a JSON Schema: its required members only. A draft for a person, not always a valid input."""
    definitions = definitions or schema.get("$defs", {})
    if "$ref" in schema:
        return example_input(definitions.get(schema["$ref"].rpartition("/")[2], {}), definitions)
    for name in ("examples", "enum", "anyOf", "oneOf"):
        if schema.get(name):
            first = schema[name][0]
            return example_input(first, definitions) if name in ("anyOf", "oneOf") else first
    if "const" in schema or "default" in schema:
        return schema.get("const", schema.get("default"))
    if schema.get("type") == "object":
        members = schema.get("properties", {})
        return {name: example_input(members.get(name, {}), definitions) for name in schema.get("required", ())}
    return _SIMPLE.get(str(schema.get("type")), {})


_SIMPLE: dict[str, Any] = {"string": "hello", "integer": 1, "number": 1.0, "boolean": True, "array": [], "null": None}
