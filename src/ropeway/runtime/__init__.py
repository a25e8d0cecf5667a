"""The worker: tasks and resources of an application, and what leases, runs and commits their jobs."""

from ropeway.runtime.batching.settings import DONE, NOTHING, Batch, Step
from ropeway.runtime.context import Context
from ropeway.runtime.options import Snapshot, WorkerOptions
from ropeway.runtime.registry import App
from ropeway.runtime.resources import ResourceFailed
from ropeway.runtime.signature import given
from ropeway.runtime.task import Task
from ropeway.runtime.watchdog import WorkerDeaf
from ropeway.runtime.worker import Worker, run_worker

__all__ = [
    "DONE",
    "NOTHING",
    "App",
    "Batch",
    "Context",
    "ResourceFailed",
    "Snapshot",
    "Step",
    "Task",
    "Worker",
    "WorkerDeaf",
    "WorkerOptions",
    "given",
    "run_worker",
]
