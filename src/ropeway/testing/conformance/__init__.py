"""The protocol's promises, one check each: what an engine must pass to be one.

    for check in checks_for(harness):
        await run(check, harness)        # AssertionError: the promise is broken

Engine authors write a `Harness` (and a `DurableHarness` where jobs survive); no test framework is needed.
"""

from ropeway.testing.conformance import (
    accounts,
    cancelling,
    delays,
    duties,
    events,
    fairness,
    fences,
    finding,
    hints,
    idempotency,
    leasing,
    life,
    outbox,
    outcomes,
    queues,
    rates,
    reading,
    records,
    repeats,
    retention,
    retries,
    sessions,
    submitting,
    tenants,
)
from ropeway.testing.conformance.registry import CHECKS, Check, checks_for, run

__all__ = [
    "CHECKS",
    "Check",
    "accounts",
    "cancelling",
    "checks_for",
    "delays",
    "duties",
    "events",
    "fairness",
    "fences",
    "finding",
    "hints",
    "idempotency",
    "leasing",
    "life",
    "outbox",
    "outcomes",
    "queues",
    "rates",
    "reading",
    "records",
    "repeats",
    "retention",
    "retries",
    "run",
    "sessions",
    "submitting",
    "tenants",
]
