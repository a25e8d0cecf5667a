"""From a job as the engine has it to what the example's routes say of it."""

from __future__ import annotations

from typing import Any

import msgspec

from examples.crops.intake import CROP_ID
from examples.crops.shapes import Ended, Running
from ropeway import JobError
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State

__all__ = ["ended", "running"]

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_error = msgspec.json.Decoder(JobError).decode


def running(job: Job, position: int | None) -> Running:
    """A job that is on its way. What an attempt told counts until the next one tells something else."""
    told = _decode(job.progress) if job.progress else {}
    is_running = job.state is State.running
    again = job.attempt > 0 and not is_running
    return Running(
        job_id=job.id,
        crop_id=job.options.metadata.get(CROP_ID, ""),
        status="running" if is_running else "queued",
        progress_percent=round(100 * told.get("fraction", 0)) if is_running else 0,
        current_step=told.get("step", "started")
        if is_running
        else "waiting for the next attempt"
        if again
        else "queued",
        attempt=job.attempt,
        worker=job.worker if is_running else None,
        queue_position=position,
    )


def ended(job: Job) -> Ended:
    """A job that has ended: its result with addresses of the maps, or why there is none."""
    result = None
    if job.state is State.succeeded and job.output is not None:
        result = _decode(job.output)
        result["maps"] = {name: _address(file) for name, file in result["maps"].items()}
    return Ended(
        job_id=job.id,
        crop_id=job.options.metadata.get(CROP_ID, ""),
        status=job.state.value,
        progress_percent=100 if result else 0,
        attempt=job.attempt,
        worker=job.worker,
        result=result,
        error=_decode_error(job.error) if job.error else None,
        cancel_reason=job.cancel_reason,
    )


def _address(file: dict[str, str] | None) -> str | None:
    return None if file is None else f"/v1/files/{file['$file']}/content"
