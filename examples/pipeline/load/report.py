"""What a load test saw, and what it comes to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from examples.pipeline.shapes import Efficiency, RequestStatus

__all__ = ["Percentiles", "Report", "Sample", "Tally", "percentiles", "report_of"]


class Sample(msgspec.Struct, frozen=True):
    """One look at the queue; `finished` counts since the store was made."""

    waiting: int
    running: int
    threads: int | None
    finished: int

    @property
    def live(self) -> int:
        return self.waiting + self.running


class Percentiles(msgspec.Struct, frozen=True):
    """Seconds."""

    p50: float
    p95: float
    p99: float
    most: float


class Report(msgspec.Struct, frozen=True):
    """The outcome. Durations are seconds; `tracking_cpu_s` is CPU of all server processes for one request.

    Attributes:
        lost: accepted, and not known or not ended when asked after. Must be 0.
        repeated: asked again because the server did not answer.
        throughput: requests ended a second, from the first one's creation to the last one's end.
        accepting: from POST to 202, as the client saw it. latency: from creation to end. processing: from start to end.
        added_s: mean of processing beyond the request's longer step: starting threads, waiting for a core, committing.
        tracking_percent: CPU of one request, in percent of its processing time.
    """

    requests: int
    accepted: int
    refused: int
    succeeded: int
    failed: int
    lost: int
    repeated: int
    peak_in_flight: int
    peak_queued: int
    peak_threads: int
    submit_s: float
    elapsed_s: float
    throughput: float
    accepting: Percentiles | None
    latency: Percentiles | None
    processing: Percentiles | None
    added_s: float
    tracking_cpu_s: float | None
    tracking_percent: float | None
    rss_bytes: int | None
    workers: dict[str, int]
    troubles: tuple[str, ...]

    def good(self, allow_refused: bool) -> bool:
        """Whether everything that was accepted succeeded, and nothing unexpected was met."""
        complete = self.succeeded == self.accepted > 0 and not self.failed and not self.lost and not self.troubles
        return complete and (allow_refused or not self.refused)


class Tally:
    """Counts while the test runs."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.refused = 0
        self.repeated = 0
        self.submit_s = 0.0
        self.accepted_ids: list[str] = []
        self.accepting_s: list[float] = []
        self.ended: list[RequestStatus] = []
        self.looks = 0
        self.seen: Sample | None = None
        self.first: Sample | None = None
        self.peak_in_flight = self.peak_queued = self.peak_threads = 0
        self.troubles: list[str] = []

    @property
    def done(self) -> int:
        """Requests ended since the test began, as the queue's own counters tell it."""
        return self.seen.finished - self.first.finished if self.seen and self.first else 0

    def answered(self, request_id: str, status: int, seconds: float, body: bytes) -> None:
        """A submit was answered with this status."""
        if status == 202:
            self.accept(request_id, seconds)
        elif status in (429, 503):
            self.refused += 1
        else:
            self.trouble(f"POST /process answered {status}: {body[:200].decode(errors='replace')}")

    def accept(self, request_id: str, seconds: float) -> None:
        self.accepted_ids.append(request_id)
        self.accepting_s.append(seconds)

    def finish(self, status: RequestStatus) -> None:
        self.ended.append(status)

    def look(self, sample: Sample) -> None:
        self.first = self.first or sample
        self.seen = sample
        self.looks += 1
        self.peak_in_flight = max(self.peak_in_flight, sample.running)
        self.peak_queued = max(self.peak_queued, sample.waiting)
        self.peak_threads = max(self.peak_threads, sample.threads or 0)

    def trouble(self, what: str) -> None:
        self.troubles.append(what)


def report_of(tally: Tally, before: Efficiency, after: Efficiency) -> Report:
    """The report of a test that has run."""
    done = [status for status in tally.ended if status.status == "succeeded"]
    elapsed_s = _span_s(tally.ended)
    processing = [status.processing_time for status in done if status.processing_time is not None]
    cpu_s = _cpu_s(before, after, len(tally.ended))
    mean_s = _mean(processing)
    return Report(
        requests=tally.requests,
        accepted=len(tally.accepted_ids),
        refused=tally.refused,
        succeeded=len(done),
        failed=len(tally.ended) - len(done),
        lost=len(tally.accepted_ids) - len(tally.ended),
        repeated=tally.repeated,
        peak_in_flight=tally.peak_in_flight,
        peak_queued=tally.peak_queued,
        peak_threads=tally.peak_threads,
        submit_s=tally.submit_s,
        elapsed_s=elapsed_s,
        throughput=len(tally.ended) / elapsed_s if elapsed_s else 0.0,
        accepting=percentiles(tally.accepting_s),
        latency=percentiles([_between(status.created, status.completed) for status in done]),
        processing=percentiles(processing),
        added_s=_mean([(status.processing_time or 0) - _longest_step_s(status) for status in done]),
        tracking_cpu_s=cpu_s,
        tracking_percent=None if cpu_s is None or not mean_s else 100 * cpu_s / mean_s,
        rss_bytes=sum(process.rss_bytes for process in after.processes) or None,
        workers=dict(Counter(status.worker or "?" for status in tally.ended)),
        troubles=tuple(tally.troubles),
    )


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Nearest-rank percentiles; None for no values."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Percentiles(at(0.50), at(0.95), at(0.99), ordered[-1])


def _cpu_s(before: Efficiency, after: Efficiency, requests: int) -> float | None:
    """CPU seconds of one request over the server's processes; None when one of them is not the same as before."""
    spent = {process.pid: process.cpu_s for process in after.processes}
    earlier = {process.pid: process.cpu_s for process in before.processes}
    if not requests or not spent or spent.keys() != earlier.keys():
        return None
    return sum(spent[pid] - earlier[pid] for pid in spent) / requests


def _span_s(ended: Sequence[RequestStatus]) -> float:
    if not ended:
        return 0.0
    return _between(min(s.created for s in ended), max(s.completed or s.created for s in ended))


def _between(start: str, end: str | None) -> float:
    """Seconds between two instants."""
    return (datetime.fromisoformat(end or start) - datetime.fromisoformat(start)).total_seconds()


def _longest_step_s(status: RequestStatus) -> float:
    return max((step.seconds for step in (status.step_1, status.step_2) if step is not None), default=0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
