"""What is the memory engine's own: its store refuses to break the state table."""

from __future__ import annotations

import pytest

from ropeway.domain.job import NewJob
from ropeway.domain.lifecycle import State
from ropeway.engines.memory.store import Store


@pytest.mark.parametrize("new", [State.succeeded, State.scheduled])
def test_an_impossible_move_stops(new: State) -> None:
    """A move without an arrow in the table raises AssertionError and changes nothing: a bug must stop, not go on."""
    store = Store()
    job = store.add(NewJob("job_1", "acme", "chat", "echo", "{}"), 0)
    with pytest.raises(AssertionError, match="no arrow from queued"):
        store.move(job, new)
    assert store.jobs["job_1"] == job
    assert store.line("chat").depth == 1
