"""The Lua scripts, each behind what all share. Sent by their hash: two versions live side by side in a deploy."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import NamedTuple

__all__ = ["SCRIPTS", "Script"]

_FOLDER = files("ropeway.engines.redis") / "lua"
_COMMON = ("common.lua", "limiting.lua")


class Script(NamedTuple):
    """A script's text as the server runs it, and its hash."""

    name: str
    text: str
    sha: str


def _load(name: str) -> Script:
    """The shebang, with its flags, must stay the first line of all."""
    shebang, _, body = (_FOLDER / f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    text = f"{shebang}\n{_shared(body)}"
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - the server's own choice


def _shared(body: str) -> str:
    """The body behind those paragraphs of the common files whose names it uses, or that one of those uses.

    Each run of a script makes every function in it anew: what is not used would be a fifth of a short script's time.
    """
    for paragraph in reversed(_PARAGRAPHS):
        named = re.findall(r"^local (?:function )?(\w+(?:, \w+)*)", paragraph, re.MULTILINE)
        names = {name for several in named for name in several.split(", ")}
        if names.intersection(re.findall(r"\w+", re.sub(r"--.*", "", body))):
            body = f"{paragraph}\n\n{body}"
    return body


_PARAGRAPHS = [
    paragraph
    for name in _COMMON
    for paragraph in re.split(r"\n\n(?=\S)", (_FOLDER / name).read_text(encoding="utf-8").strip())
]


SCRIPTS = {
    name: _load(name)
    for name in sorted(entry.name.removesuffix(".lua") for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))
    if name + ".lua" not in _COMMON
}
"""Every script by its name."""
