"""Which queues a worker serves, by its labels: those whose tasks need nothing that it lacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ropeway.domain.errors import InvalidRequest
from ropeway.domain.label import CPU, GPU, lacking
from ropeway.domain.lease import Assignment
from ropeway.runtime.attempt import Attempt, Session
from ropeway.runtime.committer import Committer
from ropeway.runtime.judge import judge_unmet
from ropeway.runtime.options import WorkerOptions
from ropeway.runtime.process.devices import found_devices
from ropeway.runtime.registry import App, is_own
from ropeway.runtime.task import Task

__all__ = ["Standing", "Unserved", "standing_of"]

log = logging.getLogger("ropeway.worker")

Lacking = Mapping[str, tuple[str, ...]]


class Standing(msgspec.Struct, frozen=True):
    """What a worker is and may therefore serve.

    `lacking`: by the names of the tasks that it cannot run, the labels that it would need for them.
    """

    labels: tuple[str, ...]
    devices: tuple[str, ...]
    lacking: Lacking
    queues: tuple[str, ...]


def standing_of(app: App, options: WorkerOptions) -> Standing:
    """The standing of a worker of this application. Raises InvalidRequest when there is nothing that it could serve."""
    devices = found_devices() if options.devices is None else options.devices
    labels = tuple(sorted({*options.labels, CPU, *((GPU,) if devices else ())}))
    tasks = app.tasks.values()
    unmet = {task.name: missing for task in tasks if (missing := lacking(task.card.needs, labels))}
    queues = options.queues or app.queues or ("default",)
    return Standing(labels, devices, unmet, _served(queues, tasks, labels, unmet))


def _served(
    queues: Sequence[str], tasks: Iterable[Task[..., Any, Any]], labels: Sequence[str], unmet: Lacking
) -> tuple[str, ...]:
    """The queues without those whose tasks it cannot run."""
    left_out = {task.card.queue: unmet[task.name] for task in tasks if task.name in unmet}
    kept = tuple(queue for queue in queues if queue not in left_out)
    told = "; ".join(
        f"queue '{queue}' needs {' and '.join(missing)}" for queue, missing in left_out.items() if queue in queues
    )
    if not told:
        return kept
    here = f"this worker has {', '.join(labels)} (--devices and --labels say what it has)"
    if not any(task.card.queue in kept for task in tasks if not is_own(task.name)):
        raise InvalidRequest(f"there is nothing that this worker could serve: {told}; {here}")
    log.warning("not served here: %s; %s", told, here)
    return kept


class Unserved:
    """Ends jobs of tasks that the worker cannot run, which came to it by a queue that is not their own."""

    def __init__(self, unmet: Lacking, committer: Committer) -> None:
        self._unmet = unmet
        self._committer = committer

    def start(self, assignment: Assignment, session: Session) -> None:
        outcome = judge_unmet(assignment, self._unmet[assignment.task])
        self._committer.add(Attempt(assignment, session), outcome)
