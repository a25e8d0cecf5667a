"""What a task with `run="process"` asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from ropeway.domain.label import GPU, written
from ropeway.domain.worker import TaskCard
from ropeway.runtime.settings import at_least_one

__all__ = ["ISOLATION_SETTINGS", "MIB", "PLAIN", "Device", "Isolation", "check_needs", "isolation_of", "needs_of"]

Device = Literal["cpu", "gpu"]

MIB = 1 << 20


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """How the children of one task are kept. All but `device` have a meaning for `run="process"` alone.

    Attributes:
        children: how many at most in one worker; as many as the worker allows, or one a device, when None.
        device: `gpu`: one child to each of the worker's devices, which sees no other. `cpu`: it sees none.
        memory_mib: a child that holds more is killed, and its attempt fails with `out_of_memory`. What is counted is
            anonymous and shared memory; files that are mapped (a model's weights) are not.
        data_mib: the system refuses a child more private memory than this (RLIMIT_DATA), touched or not: its code gets
            MemoryError where it asks for it.
        max_jobs_per_child: after so many jobs a child is replaced.
        max_mib_per_child: after a job that leaves it with more than this, counted as `memory_mib` is, it is replaced.
    """

    children: int | None = None
    device: Device | None = None
    memory_mib: int | None = None
    data_mib: int | None = None
    max_jobs_per_child: int | None = None
    max_mib_per_child: int | None = None

    @property
    def watches_memory(self) -> bool:
        return self.memory_mib is not None


PLAIN = Isolation()
"""That of a task which asks for nothing."""

ISOLATION_SETTINGS = tuple(name for name in Isolation.__struct_fields__ if name != "device")
"""The names of the settings that only children have."""


def isolation_of(task: str, settings: Mapping[str, Any], *, batched: bool) -> Isolation:
    """What a task's settings ask for. Raises ValueError for one out of range, or that has no meaning here."""
    run, device = settings.get("run"), settings.get("device")
    if device is not None and device not in ("cpu", "gpu"):
        raise ValueError(f"task '{task}': device is 'cpu' or 'gpu', not {device!r}")
    if run != "process":
        idle = [name for name in ISOLATION_SETTINGS if settings.get(name) is not None]
        if device == "cpu":
            idle.append("device='cpu'")
        if idle:
            raise ValueError(f"task '{task}': {idle[0]} is for children, and so for run='process'")
        return Isolation(device=device)
    if batched:
        raise ValueError(f"task '{task}': a batch runs on a thread of the worker, not with run='process'")
    return Isolation(
        device=device, **{name: at_least_one(task, name, settings.get(name)) for name in ISOLATION_SETTINGS}
    )


def needs_of(task: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels that a worker must have for this task. Raises InvalidRequest for what is no label, TypeError."""
    needs = settings.get("needs") or {}
    if not isinstance(needs, Mapping):
        raise TypeError(f"task '{task}': needs are given as {{'device': 'gpu'}}, not {needs!r}")
    return tuple(sorted({*written(needs), *((GPU,) if settings.get("device") == "gpu" else ())}))


def check_needs(task: str, queue: str, needs: tuple[str, ...], others: Iterable[TaskCard]) -> None:
    """Nothing, when a queue's tasks need the same of their workers. Raises ValueError: a lease asks for a queue."""
    for other in others:
        if other.queue == queue and other.needs != needs:
            raise ValueError(
                f"task '{task}' needs {_listed(needs)} of its worker and '{other.name}' {_listed(other.needs)}, on the "
                f"same queue '{queue}': a worker leases from a queue, so give one of them another (queue=...)"
            )


def _listed(needs: tuple[str, ...]) -> str:
    return " and ".join(needs) or "nothing"
