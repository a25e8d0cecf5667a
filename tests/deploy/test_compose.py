"""deploy/compose.yaml without Docker: it is what Compose takes, it says only what Ropeway understands, and its
processes, started here with the same commands, serve.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema_rs
import pytest
import typer
from compose_support import DEPLOY, Service, read_compose

from ropeway.blobs.connect import connect_blobs
from ropeway.cli.main import app as commands
from ropeway.cli.target import load_app
from ropeway.config import load_settings
from ropeway.domain.errors import InvalidRequest
from ropeway.engines.connect import connect

PASSWORD = "l3tm31n"
WHOLE, SERVICES = read_compose({"VALKEY_PASSWORD": PASSWORD})
OURS = {name: service for name, service in SERVICES.items() if service.command[0] == "ropeway"}


def test_compose_takes_the_file() -> None:
    """It is valid by the Compose specification's own schema."""
    schema = json.loads(files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_bytes())
    assert [str(error) for error in jsonschema_rs.validator_for(schema).iter_errors(WHOLE)] == []


def test_nothing_starts_without_a_password() -> None:
    """There is no password in the file, and none by default."""
    with pytest.raises(KeyError, match=r"put it into deploy/\.env"):
        read_compose({})
    assert "VALKEY_PASSWORD=" in (DEPLOY / "env.example").read_text().splitlines()
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def test_there_are_two_gateways_workers_and_a_valkey() -> None:
    """Each is started again when it dies; workers are scaled: they have no name, and no port, of their own."""
    assert set(SERVICES) == {"valkey", "gateway-1", "gateway-2", "worker"}
    assert {service.raw["restart"] for service in SERVICES.values()} == {"unless-stopped"}
    assert {"container_name", "ports"}.isdisjoint(SERVICES["worker"].raw)
    for service in OURS.values():
        assert service.raw["depends_on"] == {"valkey": {"condition": "service_healthy"}}


def test_only_this_host_reaches_a_gateway_and_nobody_the_valkey() -> None:
    """Nobody is asked for a key: what is published is published on the loopback."""
    published = [port for service in SERVICES.values() for port in service.raw.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8000"]


@pytest.mark.parametrize("service", OURS.values(), ids=lambda service: service.name)
def test_every_option_is_one_of_the_command_line(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands parse, their values are in range, and they name an application that is there."""
    program, command, *arguments = service.command
    assert program == "ropeway"
    monkeypatch.chdir(DEPLOY)
    group = typer.main.get_command(commands)
    found = group.get_command(None, command)  # type: ignore[attr-defined]  # it is a group
    told = found.make_context(command, list(arguments)).params
    assert set(load_app(told["target"]).tasks) == {"chat", "report"}
    if command == "api":
        assert (told["host"], told["port"], told["insecure"]) == ("0.0.0.0", 8000, True)
        assert service.raw["ports"][0].endswith(f":{told['port']}")
        assert f":{told['port']}/readyz" in service.health[-1]


@pytest.mark.parametrize("service", OURS.values(), ids=lambda service: service.name)
def test_every_variable_is_a_setting(service: Service) -> None:
    """The settings' own loader takes the environment; the engine's URL holds to class `disk`."""
    known = {name: text for name, text in service.settings().items() if name != "ROPEWAY_LOG"}
    settings = load_settings({}, environ=known, path=Path("/dev/null"))
    assert settings.engine == f"valkey://:{PASSWORD}@valkey:6379?durability=disk"
    assert connect(settings.engine).info.url == "valkey://:***@valkey:6379?durability=disk"
    assert service.environment["ROPEWAY_LOG"] == "info"
    assert settings.blobs == service.environment["ROPEWAY_BLOBS"]
    with pytest.raises(InvalidRequest, match="prot"):
        load_settings({}, environ={**known, "ROPEWAY_SERVER_PROT": "1"}, path=Path("/dev/null"))


def test_all_of_them_keep_files_in_the_same_place() -> None:
    """One volume of this host, which belongs to the image's user; or a bucket, where the environment names one."""
    assert {service.environment["ROPEWAY_BLOBS"] for service in OURS.values()} == {"file:///files"}
    for service in OURS.values():
        (mount,) = service.raw["volumes"]
        volume, target = mount.split(":")
        assert volume in WHOLE["volumes"]
        store = connect_blobs(service.environment["ROPEWAY_BLOBS"])
        assert store.url == f"file:{target}"
        assert service.raw["read_only"] is True
    _, elsewhere = read_compose({"VALKEY_PASSWORD": PASSWORD, "ROPEWAY_BLOBS": "s3://bucket/files"})
    assert {elsewhere[name].environment["ROPEWAY_BLOBS"] for name in OURS} == {"s3://bucket/files"}
    assert "# ROPEWAY_BLOBS=s3://" in (DEPLOY / "env.example").read_text()


def test_a_stop_leaves_time_for_what_runs() -> None:
    """A container is killed later than its process has drained: a gateway in 10 s, a worker 15 s after its grace."""
    worker = SERVICES["worker"]
    grace_s = float(worker.command[worker.command.index("--grace") + 1])
    assert seconds(worker.raw["stop_grace_period"]) >= grace_s + 15
    assert seconds(SERVICES["gateway-1"].raw["stop_grace_period"]) >= 10 + 5


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])
