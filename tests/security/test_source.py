"""What the source may not do: run what it reads, compare secrets by `==`, put values into SQL, keep known holes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src" / "ropeway"

FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
SECRETS = re.compile(r"(^|_)(secret|token|password|digest|signature|hmac|checksum)$")
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|CREATE|DROP|ALTER|PRAGMA)\b")

# What a statement may be put together from: our own constants, and what is made of them alone.
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")

LEASE = "lease.token"  # a fence, not a secret: workers show it to the engine, which compares it in SQL and Lua as well

# Statements of names that their own lines list.
OF_LISTED_NAMES = {("engines/sqlite/connection.py", "pragma"), ("engines/sqlite/fsck.py", "state")}

Fault = tuple[str, int]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text())


def found(rule: Callable[[ast.AST], bool], code: str | None = None) -> list[Fault]:
    """Where the rule is broken: in the source, or in a sample of code."""
    looked_at = trees() if code is None else [("sample", ast.parse(code))]
    return [(name, getattr(node, "lineno", 0)) for name, tree in looked_at for node in ast.walk(tree) if rule(node)]


def runs_what_it_reads(node: ast.AST) -> bool:
    """Imports what makes objects or code of data, or calls it."""
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in FORBIDDEN_MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in FORBIDDEN_MODULES
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    shell = any(k.arg == "shell" and not _is_false(k.value) for k in node.keywords)
    return called in FORBIDDEN_CALLS or called in SHELLS or shell


def compares_a_secret(node: ast.AST) -> bool:
    """`==` on something that is named as a secret is. `None` and literals are no secrets."""
    if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
        return False
    sides = [node.left, *node.comparators]
    names = [ast.unparse(side) for side in sides if isinstance(side, ast.Name | ast.Attribute)]
    if any(isinstance(side, ast.Constant) for side in sides) or any(name.endswith(LEASE) for name in names):
        return False
    return any(SECRETS.search(name.split(".")[-1]) for name in names)


def puts_a_value_into_sql(node: ast.AST) -> bool:
    """An f-string that is SQL, or `+` or `%` on one, with anything but constants in it."""
    if isinstance(node, ast.JoinedStr):
        first = node.values[0] if node.values else None
        is_sql = isinstance(first, ast.Constant) and SQL.match(str(first.value))
        parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return bool(is_sql) and not all(_is_ours(part) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod) and isinstance(node.left, ast.Constant):
        return bool(SQL.match(str(node.left.value))) and not _is_ours(node.right)
    return False


def _is_ours(value: ast.expr) -> bool:
    """A constant of the module, a part of one, or what a function makes of constants alone."""
    if isinstance(value, ast.Constant):
        return True
    if isinstance(value, ast.Name):
        return bool(CONSTANT.fullmatch(value.id))
    if isinstance(value, ast.Attribute):
        return _is_ours(value.value)
    if isinstance(value, ast.BinOp):
        return _is_ours(value.left) and _is_ours(value.right)
    if isinstance(value, ast.Subscript):
        return _is_ours(value.value)
    if isinstance(value, ast.Call):
        given = [*value.args, *(keyword.value for keyword in value.keywords)]
        return all(_is_ours(argument) for argument in given)
    if isinstance(value, ast.GeneratorExp | ast.ListComp):
        return all(_is_ours(part.iter) for part in value.generators)
    if isinstance(value, ast.IfExp):
        return _is_ours(value.body) and _is_ours(value.orelse)
    return False


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_nothing_that_is_read_is_run() -> None:
    """No pickle, no YAML, no eval, no shell: data stays data, whoever wrote it into the store."""
    assert found(runs_what_it_reads) == []


def test_secrets_are_compared_in_constant_time() -> None:
    """By `hmac.compare_digest`, never by `==`."""
    assert found(compares_a_secret) == []


def test_no_value_is_part_of_a_statement() -> None:
    """Values are bound; what is put into SQL is this package's own."""
    sources = {path: (SOURCE / path).read_text().splitlines() for path, _ in OF_LISTED_NAMES}
    listed = {
        (path, number)
        for path, name in OF_LISTED_NAMES
        for number, line in enumerate(sources[path], 1)
        if re.search(rf"[{{ ]{name}}}", line)
    }
    assert set(found(puts_a_value_into_sql)) - listed == set()


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (runs_what_it_reads, "import pickle", "import json"),
        (runs_what_it_reads, "from yaml import load", "from tomllib import load"),
        (runs_what_it_reads, "eval(text)", "evaluate(text)"),
        (runs_what_it_reads, "subprocess.run(line, shell=True)", "subprocess.run([line], shell=False)"),
        (compares_a_secret, "key.secret == given", "secret is None"),
        (compares_a_secret, "password != other", "len(password) == 5"),
        (puts_a_value_into_sql, 'f"SELECT {name} FROM jobs"', 'f"SELECT {_COLUMNS} FROM jobs"'),
        (puts_a_value_into_sql, '"DELETE FROM jobs WHERE id = " + job_id', 'f"SELECT {CODES[State.queued]}"'),
        (puts_a_value_into_sql, '"SELECT %s" % name', 'f"no statement {name}"'),
    ],
)
def test_the_rules_can_fail(rule: Callable[[ast.AST], bool], bad: str, good: str) -> None:
    """Each finds what it is for, and lets the rest be."""
    assert found(rule, bad)
    assert not found(rule, good)


@pytest.mark.parametrize(
    ("package", "least"),
    [
        ("starlette", (1, 3, 1)),  # CVE-2024-47874, CVE-2026-54283: forms
        ("apsw", (3, 51, 2)),  # SQLite with the WAL-reset corruption before
        ("python-multipart", (0, 0, 27)),  # CVE-2026-42561
        ("msgspec", (0, 20)),
        ("httptools", (0, 6, 4)),
        ("websockets", (15, 0)),
    ],
)
def test_no_known_hole_is_installed(package: str, least: tuple[int, ...]) -> None:
    """And the project's own bounds keep it out."""
    installed = tuple(int(part) for part in re.findall(r"\d+", version(package))[: len(least)])
    assert installed >= least
    project = (SOURCE.parent.parent / "pyproject.toml").read_text()
    bound = re.search(rf'"{package}>=([\d.]+)', project)
    assert bound is not None
    assert tuple(map(int, bound[1].split(".")))[: len(least)] >= least


def test_parsers_with_a_history_of_holes_are_not_among_the_dependencies() -> None:
    """JSON by msgspec alone: what brings another parser must be thought about, and bounded here."""
    project = (SOURCE.parent.parent / "pyproject.toml").read_text()
    core = project.partition("dependencies = [")[2].partition("]")[0]
    for package in ("orjson", "multipart", "ujson", "simplejson", "aiohttp", "redis"):
        assert f'"{package}' not in core, package
