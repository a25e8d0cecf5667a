"""The tables, one a file, in the order in which they are shown."""

from __future__ import annotations

from benchmarks.cases.backlog import BACKLOG
from benchmarks.cases.batching import BATCHING
from benchmarks.cases.crash import CRASH
from benchmarks.cases.drain import DRAIN, DRAIN_THREADS, DRAIN_TWO
from benchmarks.cases.fairness import FAIRNESS, LIMITS
from benchmarks.cases.http import HTTP_SUBMIT
from benchmarks.cases.latency import LATENCY
from benchmarks.cases.memory import MEMORY
from benchmarks.cases.pipeline import PIPELINE
from benchmarks.cases.process import PROCESS
from benchmarks.cases.sleepers import SLEEPERS, THREADS
from benchmarks.cases.streams import IDLE_STREAMS, STREAM_ONE, STREAMS
from benchmarks.cases.submit import SUBMIT_BULK, SUBMIT_ONE
from benchmarks.table import Case

__all__ = ["CASES"]

CASES: tuple[Case, ...] = (
    SUBMIT_BULK,
    SUBMIT_ONE,
    DRAIN,
    DRAIN_TWO,
    DRAIN_THREADS,
    LATENCY,
    SLEEPERS,
    THREADS,
    MEMORY,
    BACKLOG,
    CRASH,
    HTTP_SUBMIT,
    STREAM_ONE,
    STREAMS,
    IDLE_STREAMS,
    BATCHING,
    PROCESS,
    PIPELINE,
    FAIRNESS,
    LIMITS,
)
