"""deploy/kubernetes, the Fly files and the systemd units, as those read them who take them, and their commands."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import typer
from compose_support import DEPLOY, ROOT
from ruamel.yaml import YAML

from ropeway.cli.main import app as commands

__all__ = [
    "GUIDE",
    "KUBERNETES",
    "MANIFESTS",
    "UNITS",
    "containers",
    "fly",
    "guide_commands",
    "manifest",
    "parsed",
    "pods",
    "unit",
]

Manifest = dict[str, Any]

KUBERNETES = DEPLOY / "kubernetes"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
GUIDE = (ROOT / "docs/deploy.md").read_text()
MANIFESTS: list[Manifest] = [
    document
    for file in sorted(KUBERNETES.glob("*.yaml"))
    for document in YAML(typ="safe", pure=True).load_all(file.read_text())
]


def manifest(kind: str, name: str) -> Manifest:
    """The one of this kind and name."""
    (found,) = [one for one in MANIFESTS if (one["kind"], one.get("metadata", {}).get("name")) == (kind, name)]
    return found


def pods() -> Iterator[Manifest]:
    """The pod templates of all that has some."""
    return (one["spec"]["template"] for one in MANIFESTS if "template" in one.get("spec", {}))


def containers() -> Iterator[Manifest]:
    return (container for pod in pods() for container in pod["spec"]["containers"])


def fly(name: str) -> dict[str, Any]:
    """A Fly file."""
    return tomllib.loads((DEPLOY / name).read_text())


def unit(name: str) -> configparser.SectionProxy:
    """The [Service] of a systemd unit. Raises what configparser does for a line or a repetition that means nothing."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # its keys have capitals
    parser.read_string((DEPLOY / "systemd" / name).read_text())
    return parser["Service"]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of `ropeway …`. Raises click's errors for what it does not know."""
    program, *names = words
    assert program.endswith("ropeway"), program
    found: Any = typer.main.get_command(commands)
    while hasattr(found, "commands"):
        found = found.get_command(None, names.pop(0))
        assert found is not None, words
    told: dict[str, Any] = found.make_context("ropeway", names).params
    return told


def guide_commands() -> list[list[str]]:
    """Every `ropeway …` in the blocks of docs/deploy.md."""
    blocks = "".join(re.findall(r"^```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
    found = re.findall(r'(?:-- |-C ")(ropeway [^">\n]*)', blocks)
    return [shlex.split(command) for command in found]
