"""deploy/Dockerfile without Docker: what it copies is there, what it installs is declared, what it runs exists."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch

from compose_support import DEPLOY, ROOT, read_compose

TEXT = (DEPLOY / "Dockerfile").read_text()
STEPS = [
    (match[1], match[2].strip())
    for line in TEXT.replace("\\\n", " ").splitlines()
    if (match := re.match(r"([A-Z]+)\s+(.*)", line))
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def copied() -> list[str]:
    """What it copies out of the repository."""
    return [source for rest in steps("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]


def test_what_is_copied_is_there_and_sent() -> None:
    """Every source is in the repository, and the ignore file lets it through; secrets and history stay out."""
    _, *kept = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    sent = [line[1:] for line in kept if line.startswith("!")]
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert sorted(copied()) == sorted(sent)
    assert not any(fnmatch(name, pattern) for name in (".git", ".venv", "deploy/.env") for pattern in sent)


def test_what_is_installed_is_declared() -> None:
    """The extra is one of the project's, and what the build reads is copied before it is built."""
    (install,) = [rest for rest in steps("RUN") if re.search(r"\bpip\b.* install ", rest)]
    assert ".[${EXTRAS}]" in install
    by_default, in_a_bucket = steps("ARG")[-1].partition("=")[2], re.search(r"--build-arg EXTRAS=([\w,]+)", TEXT)
    assert in_a_bucket is not None
    assert {*by_default.split(","), *in_a_bucket[1].split(",")} <= set(PROJECT["optional-dependencies"])
    assert {"pyproject.toml", "src", PROJECT["readme"], *PROJECT["license-files"]} <= set(copied())


def test_the_python_is_one_that_is_supported() -> None:
    """Both stages stand on the same image, of a version that the project names."""
    bases = {rest.split()[0] for rest in steps("FROM")}
    assert len(bases) == 1
    version = re.fullmatch(r"python:(3\.\d+)-slim", bases.pop())
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]


def test_it_runs_as_nobody_in_particular() -> None:
    """The last stage has a user that is not root, given by number so that it can be checked without the image."""
    user = steps("USER")[-1].partition(":")[0]
    assert user.isdigit()
    assert int(user) > 0
    assert [step for step, _ in STEPS].index("USER") > [step for step, _ in STEPS].index("COPY")


def test_a_volume_of_files_belongs_to_its_user() -> None:
    """A new volume takes its owner from the image: what compose mounts is there, and nobody else's."""
    user = steps("USER")[-1].partition(":")[0]
    (made,) = [rest for rest in steps("RUN") if rest.startswith("install -d")]
    _, services = read_compose({"VALKEY_PASSWORD": "x"})
    targets = {
        mount.split(":")[1]
        for service in services.values()
        if "build" in service.raw
        for mount in service.raw["volumes"]
    }
    assert made.split()[-1:] == list(targets)
    assert f"-o {user} " in made
    assert [step for step, _ in STEPS].index("USER") > STEPS.index(("RUN", made))


def test_it_starts_what_compose_starts() -> None:
    """Its own command is a worker of the application that the compose file serves, on the path it sets."""
    program, command, target = json.loads(steps("CMD")[-1])
    assert (program, command) == ("ropeway", "worker")
    assert program in PROJECT["scripts"]
    _, services = read_compose({"VALKEY_PASSWORD": "x"})
    assert {service.command[2] for service in services.values() if service.command[0] == "ropeway"} == {target}
    assert "PATH=/venv/bin:$PATH" in steps("ENV")[0]
    assert all(
        service.raw["build"]["dockerfile"] == "deploy/Dockerfile"
        for service in services.values()
        if "build" in service.raw
    )
