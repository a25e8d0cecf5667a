"""Settings: file < environment < flags, and each mistake told where it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ropeway.config import ServerSettings, Settings, WorkerSettings, load_settings
from ropeway.domain.errors import InvalidRequest

FILE = """
engine = "sqlite:from-file.db"
[server]
host = "10.0.0.1"
port = 8001
[worker]
queues = ["chat", "gpu"]
"""


@pytest.fixture(name="file")
def make_file(tmp_path: Path) -> Path:
    path = tmp_path / "ropeway.toml"
    path.write_text(FILE)
    return path


def test_without_a_word_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no environment, no flag: the first command of the README works."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({}, environ={}) == Settings()


def test_the_later_word_holds(file: Path) -> None:
    """A flag goes before the environment, which goes before the file; what none of them says is the default."""
    settings = load_settings(
        {"server": {"port": 8003, "host": None}, "worker": {"processes": 4}},
        environ={"ROPEWAY_SERVER_PORT": "8002", "ROPEWAY_ENGINE": "memory:", "ROPEWAY_WORKER_GRACE_S": "2.5"},
        path=file,
    )
    assert settings == Settings(
        engine="memory:",
        server=ServerSettings("10.0.0.1", 8003),
        worker=WorkerSettings(processes=4, queues=("chat", "gpu"), grace_s=2.5),
    )


def test_a_file_here_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ropeway.toml` in the working directory needs no naming."""
    monkeypatch.chdir(file.parent)
    assert load_settings({}, environ={}).server.port == 8001


def test_the_environment_may_name_the_file(file: Path) -> None:
    """ROPEWAY_CONFIG is for services whose command line is fixed."""
    assert load_settings({}, environ={"ROPEWAY_CONFIG": str(file)}).engine == "sqlite:from-file.db"


def test_lists_and_switches_in_the_environment() -> None:
    """A list has commas; a switch is true or false, 1 or 0."""
    settings = load_settings({}, environ={"ROPEWAY_WORKER_QUEUES": "a, b,", "ROPEWAY_SERVER_INSECURE": "1"})
    assert (settings.worker.queues, settings.server.insecure) == (("a", "b"), True)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"ROPEWAY_SERVER_PORT": "many"}, "the environment.*port"),
        ({"ROPEWAY_SERVER_PROT": "1"}, "the environment.*prot"),
        ({"ROPEWAY_CONFIG": "/nowhere/ropeway.toml"}, "/nowhere/ropeway.toml"),
    ],
)
def test_a_mistake_in_the_environment_is_told(environ: dict[str, str], told: str) -> None:
    """A misspelt setting must not pass for a default."""
    with pytest.raises(InvalidRequest, match=told):
        load_settings({}, environ=environ)


@pytest.mark.parametrize(
    ("text", "told"),
    [("engin = 1", "engin"), ("[server]\nport = 'x'", "port"), ("[server", "cannot be read"), ("port = 1", "port")],
)
def test_a_mistake_in_the_file_is_told_with_the_file(tmp_path: Path, text: str, told: str) -> None:
    """Which file, and what in it."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=rf"mine\.toml.*{told}"):
        load_settings({}, environ={}, path=path)


def test_unknown_names_outside_the_sections_are_let_be() -> None:
    """Others may use the prefix for their own."""
    assert load_settings({}, environ={"ROPEWAY_SOMETHING": "else", "ROPEWAY_URL": ""}).url is None
