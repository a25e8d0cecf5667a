"""Which devices there are here, and the environment that pins a child to one.

A child is told by `CUDA_VISIBLE_DEVICES`, which must stand in its environment before anything is imported: CUDA reads
it once. Inside, its one device has the number 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ropeway.domain.errors import InvalidRequest

__all__ = ["dealt", "found_devices", "named_devices", "pinned"]

AUTO = "auto"
NONE = "none"

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"  # else CUDA counts the fastest first, and nvidia-smi by the bus
_NODE = re.compile(r"nvidia\d+")


def found_devices(environ: Mapping[str, str] = os.environ, dev: Path = Path("/dev")) -> tuple[str, ...]:
    """The devices that a process here may use: those that CUDA_VISIBLE_DEVICES names, else NVIDIA's in /dev."""
    named = environ.get(VISIBLE)
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip() not in ("", "-1", "NoDevFiles"))
    try:
        nodes = [entry.name for entry in dev.iterdir() if _NODE.fullmatch(entry.name)]
    except OSError:
        return ()
    return tuple(map(str, range(len(nodes))))  # CUDA counts from 0 those that it sees, whatever their nodes' numbers


def named_devices(names: Sequence[str]) -> tuple[str, ...]:
    """The devices that `--devices` names: `auto` stands for those that are found here, `none` for none.

    Raises InvalidRequest for one of these words beside others, and for a device that is named twice.
    """
    if tuple(names) == (AUTO,):
        return found_devices()
    if tuple(names) == (NONE,):
        return ()
    if {AUTO, NONE} & set(names) or len(set(names)) < len(names):
        raise InvalidRequest(
            f"devices are '{AUTO}', '{NONE}', or a list as 0,1, each once, not {','.join(names)}", param="devices"
        )
    return tuple(names)


def pinned(device: str | None) -> dict[str, str]:
    """What a child that is to see this device alone gets in its environment; none when it is None."""
    return {VISIBLE: ""} if device is None else {VISIBLE: device, ORDER: os.environ.get(ORDER, "PCI_BUS_ID")}


def dealt(devices: Sequence[str], workers: int) -> list[tuple[str, ...]]:
    """The devices shared out among so many workers of one machine: no two of them load the same one."""
    return [tuple(devices[n::workers]) for n in range(workers)]
