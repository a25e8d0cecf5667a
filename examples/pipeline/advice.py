"""Sizing for this pipeline on this machine: what the library advises, with what its own steps take."""

from __future__ import annotations

import functools

from examples.pipeline.settings import THREADS_PER_REQUEST, PipelineSettings
from examples.pipeline.shapes import Sizing
from ropeway.runtime.sizing import advise, measure_thread_bytes, read_machine

__all__ = ["sizing"]

CPU_S_PER_REQUEST = {"thread": 0.0012, "async": 0.0005}  # measured by the load test: README.md, "tracking"

_thread_bytes = functools.cache(measure_thread_bytes)


def sizing(settings: PipelineSettings) -> Sizing:
    """The advice; takes 0.2 s the first time, for measuring a thread."""
    machine, thread_bytes = read_machine(), _thread_bytes()
    advice = advise(
        machine.memory_bytes,
        machine.cores,
        max(settings.step1_s, settings.step2_s, 0.001),
        settings.mode == "thread",
        threads_per_job=THREADS_PER_REQUEST,
        cpu_s_per_job=CPU_S_PER_REQUEST[settings.mode],
        thread_bytes=thread_bytes,
        threads=machine.threads,
        threads_per_process=machine.threads_per_process,
    )
    return Sizing(
        workers=advice.workers,
        threads_per_worker=advice.threads_per_worker,
        concurrency=advice.concurrency,
        requests_per_s=round(advice.jobs_per_s, 1),
        estimated_memory_bytes=advice.estimated_memory_bytes,
        thread_bytes=thread_bytes,
        reasons=advice.reasons,
        machine=machine.limits,
    )
