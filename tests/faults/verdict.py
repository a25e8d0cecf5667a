"""The checker of a fault test: what was promised and seen, against what the store holds in the end."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from story import Order, Seen, Story

from ropeway.domain.event import OUTPUT_DELTA, OUTPUT_RESET, QUEUED, RETRYING, STARTED, TERMINAL_TYPES, Event
from ropeway.domain.job import Job
from ropeway.domain.lifecycle import State

__all__ = ["Final", "findings", "findings_of_job"]


class Final(NamedTuple):
    """A job as it stands in the end, with its whole log as read from the start."""

    job: Job
    log: Sequence[Event]


def findings(
    story: Story, finals: Mapping[str, Final], stored: int, runs: Iterable[str], workers_killed: set[int]
) -> list[str]:
    """Whatever is not as it was promised, in a line each.

    Args:
        finals: by job id.
        stored: how many jobs the store counts.
        runs: `job attempt pid` for each time that a task's code began.
        workers_killed: pids of workers whose death may have cost their jobs an attempt.
    """
    told = list(story.breaches)
    told += [f"{key} was never answered" for key in story.orders.keys() - story.promised.keys()]
    told += [f"{job_id} of {key} is lost" for key, job_id in story.promised.items() if job_id not in finals]
    ids = set(story.promised.values())
    if not len(ids) == len(story.orders) == stored:
        told.append(f"{len(story.orders)} keys were used, {len(ids)} jobs promised, {stored} are stored")
    ran = Counter(line.split()[0] for line in runs)
    for key, job_id in story.promised.items():
        if job_id in finals:
            told += findings_of_job(story.orders[key], finals[job_id], ran[job_id], workers_killed)
    for job_id, seen in story.readers:
        if job_id in finals:
            told += _of_reader(job_id, seen, finals[job_id].log)
    return told


def findings_of_job(order: Order, final: Final, runs: int, workers_killed: set[int]) -> list[str]:
    """One job: ended, with its own result, a log without a gap, and no attempt that is not accounted for."""
    job, log = final
    told = []
    if job.state is not State.succeeded or job.output != json.dumps(order.word):
        told.append(f"is {job.state.value} with {job.output}, and not {order.word!r}")
    told += _of_log(log)
    told += _of_output(job, log)
    told += _of_attempts(order, final, runs, workers_killed)
    return [f"{job.id} ({order.task}) {finding}" for finding in told]


def _of_log(log: Sequence[Event]) -> list[str]:
    """The ids are contiguous within each epoch, epochs rise, and one terminal event is the last."""
    told = []
    cursors = [event.cursor for event in log]
    if not cursors or (str(cursors[0]), log[0].type) != ("0-1", QUEUED):
        told.append("has a log that does not begin with its submit")
    for last, following in itertools.pairwise(cursors):
        if following.epoch < last.epoch or following.seq != (last.seq + 1 if following.epoch == last.epoch else 0):
            told.append(f"has {following} after {last} in its log")
    ends = [n for n, event in enumerate(log) if event.type in TERMINAL_TYPES]
    if ends != [len(log) - 1]:
        told.append(f"has terminal events at {ends} of {len(log)} events")
    return told


def _of_output(job: Job, log: Sequence[Event]) -> list[str]:
    """What the last attempt streamed is its result, and was not streamed twice."""
    pieces: list[str] = []
    for event in log:
        if event.type in (STARTED, OUTPUT_RESET):
            pieces = []
        elif event.type == OUTPUT_DELTA:
            pieces.append(json.loads(event.data)["delta"])
    if pieces and json.dumps("".join(pieces)) != job.output:
        return [f"streamed {''.join(pieces)!r}, and its result is {job.output}"]
    return []


def _of_attempts(order: Order, final: Final, runs: int, workers_killed: set[int]) -> list[str]:
    """Only a worker that was killed costs an attempt; each attempt began under a lease of its own."""
    job, log = final
    told = []
    worker, lost, released, retried = "", 0, 0, 0
    for event in log:
        data: dict[str, Any] = json.loads(event.data) if event.type in (STARTED, RETRYING) else {}
        if event.type == STARTED:
            worker = data["worker"]
        elif event.type == RETRYING:
            reason = data["reason"]
            lost, released, retried = (
                lost + (reason == "worker_lost"),
                released + (reason == "released"),
                retried + (reason == "retry"),
            )
            if reason == "worker_lost" and int(worker.rpartition("-")[2]) not in workers_killed:
                told.append(f"lost an attempt on {worker}, which was not killed")
    starts = sum(event.type == STARTED for event in log)
    own = 1 if order.task == "stumble" else 0
    if (job.crashes, starts) != (lost, 1 + lost + released + retried):
        told.append(f"counts {job.crashes} crashes and {starts} starts, and its log tells of {lost} and {released}")
    if retried > own or job.attempt != 1 + lost + retried:
        told.append(f"is at attempt {job.attempt} after {lost} lost workers and {retried} retries")
    if runs > starts:
        told.append(f"ran {runs} times on {starts} leases")
    return told


def _of_reader(job_id: str, seen: Sequence[Seen], log: Sequence[Event]) -> list[str]:
    """A reader that stayed to the end saw the log as it is: all of it, in order, each event once."""
    ids, whole = [event.id for event in seen], [event.id for event in log]
    if ids != whole:
        return [f"{job_id}: a reader saw {_difference(ids, whole)}"]
    return [
        f"{job_id}: {event.id} was {event.type} {event.data} for a reader, and is {stored.type} {stored.data}"
        for event, stored in zip(seen, log, strict=True)
        if event.type != stored.type
        or (event.type not in TERMINAL_TYPES and event.data["data"] != json.loads(stored.data))
    ]


def _difference(ids: Sequence[str], whole: Sequence[str]) -> str:
    twice = [event for event, count in Counter(ids).items() if count > 1]
    missing = [event for event in whole if event not in ids]
    foreign = [event for event in ids if event not in whole]
    return f"{twice} twice, {missing} never, {foreign} that are not there, of {len(whole)} events"
