"""What a worker is told of its devices, labels and children on the command line, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from ropeway.cli.serving import worker_options
from ropeway.cli.up import _Family
from ropeway.config import load_settings
from ropeway.domain.errors import InvalidRequest
from ropeway.runtime.process import devices


def flags_of(worker: dict[str, Any]) -> list[dict[str, str]]:
    """The flags that each worker process of these settings is started with."""
    settings = load_settings({"worker": worker}, environ={})
    children = _Family(settings, "info", None).workers("shop:app")
    return [dict(zip(child.argv[5::2], child.argv[6::2], strict=False)) for child in children]


def test_devices_are_dealt_out_among_the_workers() -> None:
    """Each device is one worker's own; who gets none is told so, and does not look for any."""
    told = flags_of({"processes": 3, "devices": ["0", "1"]})
    assert [flags["--devices"] for flags in told] == ["0", "1", "none"]


def test_what_is_found_is_dealt_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is looked up once, before the workers start: two of them must not each take all."""
    monkeypatch.setattr(devices, "found_devices", lambda: ("0", "1", "2"))
    assert [flags["--devices"] for flags in flags_of({"processes": 2})] == ["0,2", "1"]


def test_labels_and_children_are_passed_on() -> None:
    """As they were given; nothing is said of what was not."""
    (told,) = flags_of({"labels": ["zone=eu", "model=a"], "children": 3})
    assert (told["--labels"], told["--children"]) == ("model=a,zone=eu", "3")
    assert "--labels" not in flags_of({})[0]


def test_a_workers_options_follow_the_settings() -> None:
    """From the environment as from flags."""
    environ = {"ROPEWAY_WORKER_DEVICES": "GPU-1,GPU-2", "ROPEWAY_WORKER_LABELS": "zone=eu"}
    options = worker_options(load_settings({}, environ=environ).worker)
    assert (options.devices, options.labels) == (("GPU-1", "GPU-2"), ("zone=eu",))
    assert worker_options(load_settings({"worker": {"devices": ["none"]}}, environ={}).worker).devices == ()


@pytest.mark.parametrize("named", [["0", "0"], ["auto", "1"], ["none", "0"]])
def test_devices_that_cannot_be_are_refused(named: list[str]) -> None:
    """Named twice, or a word beside others."""
    with pytest.raises(InvalidRequest, match="devices are 'auto', 'none', or a list as 0,1, each once"):
        worker_options(load_settings({"worker": {"devices": named}}, environ={}).worker)
