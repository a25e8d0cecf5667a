"""The commands, ports and times in deploy/kubernetes, the Fly files, the systemd units and the guide: what Ropeway
understands, and long enough.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from compose_support import DEPLOY, ROOT
from manifest_support import GUIDE, UNITS, containers, fly, guide_commands, manifest, parsed, unit

from ropeway.cli.target import load_app
from ropeway.cli.up import GRACE_MARGIN_S
from ropeway.config import load_settings
from ropeway.domain.caller import Scope
from ropeway.serving import hosts_for
from ropeway.serving.server import ServerOptions

SPARE_S = 5.0  # that a process has beside what it is known to need, before it is killed
DRAIN_S = ServerOptions().drain_grace_s
FLY_KEYS = {"app", "build", "deploy", "env", "http_service", "kill_signal", "kill_timeout", "mounts", "primary_region"}
FLY_KEYS |= {"processes", "vm"}


def test_a_stop_leaves_time_for_what_runs() -> None:
    """A process is killed later than it has drained, wherever it runs."""
    gateway = manifest("Deployment", "gateway")["spec"]["template"]["spec"]
    hook_s = gateway["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert gateway["terminationGracePeriodSeconds"] >= hook_s + DRAIN_S + SPARE_S
    worker = manifest("Deployment", "worker")["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] >= needed_s(worker["containers"][0]["command"])
    whole = fly("fly.toml")
    assert whole["kill_signal"] == "SIGTERM"
    assert 300 >= whole["kill_timeout"] >= max(needed_s(shlex.split(text)) for text in whole["processes"].values())
    for file in UNITS:
        service = unit(file.name)
        assert float(service["TimeoutStopSec"]) >= needed_s(shlex.split(service["ExecStart"]))


def needed_s(words: list[str]) -> float:
    """What a process of this command needs to drain, at the most, and some more."""
    if words[1] == "api":
        return DRAIN_S + SPARE_S
    return float(parsed(words)["grace"]) + GRACE_MARGIN_S + SPARE_S


def commands_here() -> list[tuple[str, list[str]]]:
    """Every command of Ropeway in these files, by where it is."""
    found = [
        (container["name"], container["command"]) for container in containers() if container["command"][0] == "ropeway"
    ]
    found += [(f"fly {name}", shlex.split(text)) for name, text in fly("fly.toml")["processes"].items()]
    found += [(file.name, shlex.split(unit(file.name)["ExecStart"])) for file in UNITS]
    return found + [("guide", words) for words in guide_commands()]


@pytest.mark.parametrize(("where", "words"), commands_here(), ids=lambda part: part if isinstance(part, str) else "")
def test_every_option_is_one_of_the_command_line(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands parse, their values are in range, and they name an application, or scopes, that are there."""
    monkeypatch.chdir(DEPLOY)
    told = parsed(words)
    if words[1] == "keys":
        assert set(told["scopes"].split(",")) <= set(Scope)
    else:
        assert set(load_app(told["target"]).tasks) == {"chat", "report"}
    if words[1] in ("api", "up"):
        assert told["port"] == 8000
        assert not told["insecure"], "what others can reach asks for a key"
    assert where


def test_gateways_listen_where_they_are_reached() -> None:
    """On all addresses of a pod and of a machine of Fly; behind a proxy of the same machine, on the loopback."""
    (gateway,) = manifest("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    assert parsed(gateway["command"])["host"] == "0.0.0.0"
    assert hosts_for("0.0.0.0") is None, "they answer to the service's name, and to any other"
    assert gateway["ports"] == [{"name": "http", "containerPort": parsed(gateway["command"])["port"]}]
    for file in UNITS:
        assert parsed(shlex.split(unit(file.name)["ExecStart"])).get("host", "127.0.0.1") == "127.0.0.1"


def test_fly_starts_both_groups() -> None:
    """Services, machines and checks name groups that are there; ports and paths are the gateway's own."""
    whole = fly("fly.toml")
    assert set(whole) <= FLY_KEYS
    service = whole["http_service"]
    assert service["processes"] == ["gateway"]
    assert service["internal_port"] == parsed(shlex.split(whole["processes"]["gateway"]))["port"]
    assert parsed(shlex.split(whole["processes"]["gateway"]))["host"] == "0.0.0.0"
    assert service["auto_stop_machines"] == "off"
    assert [check["path"] for check in service["checks"]] == ["/readyz"]
    assert service["concurrency"]["soft_limit"] < service["concurrency"]["hard_limit"]
    assert sorted(name for machine in whole["vm"] for name in machine["processes"]) == sorted(whole["processes"])
    args = whole["build"]["args"]
    assert all(f"ARG {name}=" in (DEPLOY / "Dockerfile").read_text() for name in args)


def test_fly_keeps_what_the_valkey_writes() -> None:
    """Its volume is where it writes, its image is Compose's and the cluster's, and both apps are those of the guide."""
    whole = fly("fly.valkey.toml")
    assert set(whole) <= FLY_KEYS
    (group,) = whole["processes"]
    (volume,) = whole["mounts"]
    assert (volume["processes"], whole["vm"][0]["processes"]) == ([group], [group])
    assert f"--dir {volume['destination']} " in whole["processes"][group]
    (container,) = manifest("StatefulSet", "valkey")["spec"]["template"]["spec"]["containers"]
    assert whole["build"]["image"] == container["image"]
    assert f"image: {container['image']}" in (DEPLOY / "compose.yaml").read_text()
    assert f"@{whole['app']}.internal:6379" in GUIDE
    assert f"fly secrets set -a {fly('fly.toml')['app']} ROPEWAY_ENGINE=" in GUIDE


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_is_one(file: Path) -> None:
    """It is started again whatever happens, as a user that is not root, and writes only where systemd lets it."""
    service = unit(file.name)
    assert (service["Restart"], service["User"], service["ProtectSystem"]) == ("always", "ropeway", "strict")
    if "Environment" in service:
        name, _, url = service["Environment"].partition("=")
        engine = load_settings({}, environ={name: url}, path=Path("/dev/null")).engine
        assert engine == f"sqlite:///var/lib/{service['StateDirectory']}/jobs.db"
    else:
        assert f"install -m 600 /dev/null {service['EnvironmentFile']}" in GUIDE


def test_the_guide_names_files_that_are_there() -> None:
    """And no file of deploy/ is left unnamed."""
    named = set(re.findall(r"(?:deploy|examples)/[\w./-]+\w", GUIDE)) - {"deploy/.env"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    ours = {str(file.relative_to(ROOT)) for file in [*DEPLOY.glob("fly*.toml"), *UNITS, DEPLOY / "compose.yaml"]}
    assert ours <= named
