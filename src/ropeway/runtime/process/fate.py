"""What the death of a child says of the job that it had."""

from __future__ import annotations

import signal

from ropeway.domain.errors import JobError
from ropeway.runtime.process.isolate import Death
from ropeway.runtime.verdict import Verdict

__all__ = ["how_it_ended", "verdict_on"]


def how_it_ended(death: Death) -> str:
    """The death in words."""
    return f"exit code {death.code}" if death.code >= 0 else f"signal {_name(death.code)}"


def verdict_on(death: Death, over_limit: str | None, *, out_of_memory: bool) -> Verdict:
    """What the attempt came to.

    A breach of its memory limit is the task's own failure and spends a retry, as a timeout does. A crash spends the
    budget of crashes: what killed a process once will, as a rule, kill the next.

    Args:
        over_limit: what it held, and might, if it was killed for that.
        out_of_memory: whether the kernel has just killed something for the want of memory.
    """
    if over_limit is not None:
        return Verdict(JobError("out_of_memory", over_limit, True))
    if out_of_memory and death.code == -signal.SIGKILL:
        message = "the system killed the task's process for the want of memory"
        return Verdict(JobError("out_of_memory", message, True, signal=_name(death.code)))
    message = f"the task's process died in the midst of the job: {how_it_ended(death)}"
    if death.code < 0:
        error = JobError("process_crashed", message, True, traceback=death.dump, signal=_name(death.code))
    else:
        error = JobError("process_crashed", message, True, traceback=death.dump, exit_code=death.code)
    return Verdict(error, crashed=True)


def _name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return str(-code)  # a real-time signal
