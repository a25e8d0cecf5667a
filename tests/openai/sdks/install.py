"""OpenAI's SDKs, each in a small virtual environment of its own: their versions cannot live side by side.

They stand inside the virtual environment that runs this, so `make clean` takes them along. `make test` makes them
beforehand; a test that finds one missing, or out of date, makes it then.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

__all__ = ["VERSIONS", "python_of"]

HERE = Path(__file__).parent
HOME = Path(sys.prefix) / "openai-sdks"

VERSIONS = tuple(path.stem.removeprefix("openai-") for path in sorted(HERE.glob("openai-*.txt")))


def python_of(version: str) -> Path:
    """The interpreter that has this version of the SDK."""
    wanted = (HERE / f"openai-{version}.txt").read_text()
    folder, stamp = HOME / version, HOME / f"{version}.installed"
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests may run side by side
        if not stamp.exists() or stamp.read_text() != wanted:
            _install(folder, HERE / f"openai-{version}.txt")
            stamp.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--requirement", str(requirements)], check=True)


if __name__ == "__main__":
    for known in VERSIONS:
        python_of(known)
