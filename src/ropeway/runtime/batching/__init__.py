"""Batches: one call of a task's function serves many jobs, of any client and tenant.

settings  `Batch`, and what a step of a stream may hold beside items
shape     a batch function's signature, read as that of one of its jobs
waiting   jobs that wait for a call, by key: when a batch is full, and who goes next
item      one of them: an attempt like any other, until it shares its call
batcher   one task's batches in one worker: when a call begins, and whom for; all of a worker's in `batchers`
bet       whether it pays to wait for jobs that nobody has submitted yet
call      one call: on the loop or a thread, its results given to each job
parts     the halves that it is made again for when it fails
steps     the same for streams
"""

from __future__ import annotations

__all__: list[str] = []
