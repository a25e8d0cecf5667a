"""The frames between a worker and its children: whole again however they come, large ones and wrong ones."""

from __future__ import annotations

import random

from process_app import app
from runtime_support import an_assignment, stage

from ropeway.domain.errors import JobError
from ropeway.domain.lifecycle import State
from ropeway.domain.output import Made
from ropeway.runtime.process.wire import Done, Earlier, Failed, Frames, Job, Out, Ready, Up, packed
from ropeway.runtime.verdict import Verdict

FRAMES: list[Up] = [
    Ready(),
    Out('"a"', True),
    Out("{}", False),
    Failed(Verdict(JobError("task_error", "no", True), after_s=1.5), spent=True),
    Done('"' + "x" * 100_000 + '"', snooze=(5, "tired")),
    Done(None),
]


def test_frames_are_whole_however_they_come() -> None:
    """All at once, byte by byte, and in pieces of any size."""
    stream = b"".join(map(packed, FRAMES))
    assert Frames().heard(stream) == FRAMES
    dice = random.Random(7)
    for most in (1, 3, 1000, 70_000):
        frames, heard, at = Frames(), [], 0
        while at < len(stream):
            size = dice.randint(1, most)
            heard += frames.heard(stream[at : at + size])
            at += size
        assert heard == FRAMES


def test_a_job_keeps_what_it_goes_on_from() -> None:
    """What earlier attempts made comes out as it went in."""
    made = Made()
    made.pieces, made.is_text, made.next_index, made.steps = ['"a"', "1"], False, 7, {"fetch": "[1]"}
    again = Earlier.of(made).made()
    assert (again.pieces, again.is_text, again.next_index, again.steps) == (['"a"', "1"], False, 7, {"fetch": "[1]"})
    assert packed(Job(1, an_assignment(), None, Earlier.of(made)))


async def test_large_inputs_and_outputs_pass() -> None:
    """More than any socket takes at once, both ways, and the loop waits for neither."""
    text = "abcdefgh" * 500_000
    async with stage(app) as on:
        await on.work(queues=("streams",))
        assert await on.output("words", text=text) == f"{text} "


async def test_a_child_that_cannot_be_understood_is_killed() -> None:
    """Its code wrote to the socket: the job is a crash, and the next one has another child."""
    async with stage(app) as on:
        await on.work(queues=("garbage",))
        job = await on.run("garbles")
        assert (job.state, job.crashes) == (State.failed, 1)
        assert "process_crashed" in (job.error or "")
        assert on.workers[0].snapshot().children_started == 2


async def test_a_child_that_closes_everything_is_killed() -> None:
    """It can neither tell nor be told anything: the job is a crash."""
    async with stage(app) as on:
        await on.work(queues=("garbage",))
        job = await on.run("cuts_off")
        assert (job.state, job.crashes) == (State.failed, 1)
