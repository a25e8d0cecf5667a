"""Guards the house: who may import whom, read from the imports themselves, `TYPE_CHECKING` ones too.

The picture is in docs/architecture.md. An arrow that points up, or sideways between siblings, fails with both names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ropeway"

# Each room and the rooms that it may enter, beside itself. `engines.base` is the protocol with what all engines share.
MAY_ENTER: dict[str, set[str]] = {
    "domain": set(),
    "config": {"domain"},
    "engines.base": {"domain"},
    "blobs": {"domain"},
    "blobs.folder": {"domain", "blobs"},
    "blobs.s3": {"domain", "blobs"},
    "blobs.connect": {"domain", "blobs", "blobs.folder", "blobs.s3"},
    "engines.memory": {"domain", "engines.base"},
    "engines.sqlite": {"domain", "engines.base"},
    "engines.redis": {"domain", "engines.base"},
    "engines.connect": {"domain", "engines.base", "engines.memory", "engines.sqlite", "engines.redis"},
    "client": {"domain", "engines.base", "engines.connect", "blobs", "blobs.connect"},
    "runtime": {"domain", "engines.base", "client", "blobs", "blobs.connect"},
    "models": {"domain", "runtime"},
    "serving": {"domain", "engines.base", "client", "blobs", "blobs.connect"},
    "operations": {"domain", "engines.base", "runtime", "serving"},
    "testing": {"domain", "engines.base", "engines.memory", "engines.connect"},
}
WIRING = {"cli", "mount", "face", "__main__"}  # enter every room; nobody enters them
BLOB_ROOMS = {
    "folder": "blobs.folder",
    "draft": "blobs.folder",
    "s3": "blobs.s3",
    "connect": "blobs.connect",
}
SHARED_BY_ENGINES = {"hints", "inputs", "records", "schedules", "secrets", "waits"}
LINE_LIMIT = 350


class Arrow(NamedTuple):
    importer: str
    imported: str


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room that a module stands in: `ropeway.engines.sqlite.writer` -> `engines.sqlite`."""
    parts = module.split(".")[1:]
    if not parts:
        return "face"
    if parts[0] == "blobs":
        return BLOB_ROOMS.get(".".join(parts[1:]), "blobs")
    if parts[0] != "engines":
        return parts[0]
    name = parts[1] if len(parts) > 1 else "base"
    return "engines.base" if name in SHARED_BY_ENGINES else f"engines.{name}"


def arrows() -> Iterator[Arrow]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import hides where it goes"
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from (Arrow(dotted(path), name) for name in names if name.split(".")[0] == "ropeway")


def allowed(arrow: Arrow) -> bool:
    importer, imported = room(arrow.importer), room(arrow.imported)
    if importer == imported or importer in WIRING:
        return imported != "testing" or importer == "testing"
    return imported in MAY_ENTER.get(importer, set())


def test_every_import_points_down() -> None:
    """No part enters a room above it, or a sibling's."""
    wrong = [f"{importer} -> {imported}" for importer, imported in arrows() if not allowed(Arrow(importer, imported))]
    assert wrong == []


def test_the_guard_sees_a_forbidden_arrow() -> None:
    """The guard is no formality: known wrong arrows are refused, known right ones pass."""
    assert not allowed(Arrow("ropeway.domain.job", "ropeway.engines.base"))
    assert not allowed(Arrow("ropeway.serving.app", "ropeway.runtime.worker"))
    assert not allowed(Arrow("ropeway.client.client", "ropeway.runtime.registry"))
    assert not allowed(Arrow("ropeway.cli.main", "ropeway.testing.clock"))
    assert not allowed(Arrow("ropeway.serving.app", "ropeway.engines.sqlite"))
    assert allowed(Arrow("ropeway.engines.connect", "ropeway.engines.sqlite"))
    assert not allowed(Arrow("ropeway.runtime.worker", "ropeway.blobs.folder"))
    assert not allowed(Arrow("ropeway.blobs.files", "ropeway.engines.base"))
    assert allowed(Arrow("ropeway.serving.app", "ropeway.client.wire"))


def test_every_room_is_on_the_map() -> None:
    """A new room is drawn before it is lived in."""
    assert {room(dotted(path)) for path in modules()} <= MAY_ENTER.keys() | WIRING


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_file_has_one_noun(path: Path) -> None:
    """No file grows past 350 lines, and each says what it offers."""
    lines = path.read_text().splitlines()
    assert len(lines) <= LINE_LIMIT, f"{len(lines)} lines: look for the second noun in it"
    is_program = path.name in {"__init__.py", "__main__.py"} and not any("import" in line for line in lines)
    assert is_program or path.name == "__main__.py" or any(line.startswith("__all__") for line in lines)


def test_the_domain_reads_no_clock_and_does_no_io() -> None:
    """Only `clock` reads the time, only `ids` the system's randomness; nobody there opens or awaits anything."""
    banned = {"asyncio", "threading", "socket", "random", "sqlite3", "apsw", "pathlib", "subprocess"}
    exempt = {"ropeway.domain.clock": {"time"}, "ropeway.domain.ids": {"os"}}
    for path in (SOURCE / "domain").glob("*.py"):
        imported = {
            name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in _imported_names(node)
        }
        assert imported & (banned | {"time", "os"}) <= exempt.get(dotted(path), set()), path


def _imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
