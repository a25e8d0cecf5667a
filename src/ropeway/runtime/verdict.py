"""What an exception of a task's code says of its attempt: the recorded error, and whether it is tried again.

It is made where the code ran, which may be another process than the one that commits.
"""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from types import TracebackType

import msgspec

from ropeway.domain.errors import Fail, InputInvalid, JobError, RetryAfter, TaskFault
from ropeway.runtime.coding import OutputInvalid

__all__ = ["Told", "Verdict", "plain_error", "verdict_of"]

FRAMES = 20  # of a traceback: what is deeper is seldom the cause
TRACEBACK_LIMIT = 8_192  # characters; it is stored with the job and sent to whoever asks
MESSAGE_LIMIT = 4_096

_ROOT = Path(__file__).parent.parent
_OURS = (str(_ROOT / "runtime"), str(_ROOT / "operations"))


class Verdict(msgspec.Struct, frozen=True):
    """`final`: not tried again. `after_s`: not before so many seconds. `crashed`: it spends a crash and not a retry.
    `keeps_output`: what was made so far is kept with the failure."""

    error: JobError
    final: bool = False
    after_s: float | None = None
    crashed: bool = False
    keeps_output: bool = True


class Told(Exception):
    """Stands for an exception whose verdict was made elsewhere."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.error.message)
        self.verdict = verdict


def verdict_of(error: BaseException) -> Verdict:
    """What this exception comes to, where nobody had asked the attempt to stop."""
    match error:
        case Told():
            return error.verdict
        case RetryAfter():
            return Verdict(_task_error(error, error.fault_code), after_s=error.after_s)
        case Fail():
            return Verdict(_task_error(error, error.fault_code, retryable=False), final=True)
        case InputInvalid():
            return Verdict(plain_error("input_invalid", error.detail, retryable=False), final=True, keeps_output=False)
        case OutputInvalid():
            return Verdict(plain_error("output_invalid", str(error), retryable=False), final=True)
        case MemoryError():
            return Verdict(_task_error(error, "out_of_memory"))
        case asyncio.CancelledError():
            return Verdict(plain_error("task_error", "the task cancelled itself"))
        case TaskFault():
            return Verdict(_task_error(error, error.fault_code))
        case _:
            return Verdict(_task_error(error, "task_error"))


def plain_error(code: str, message: str, *, retryable: bool = True) -> JobError:
    """An error without an exception of its own."""
    return JobError(code, _plain(message)[:MESSAGE_LIMIT], retryable)


def _task_error(error: BaseException, code: str, *, retryable: bool = True) -> JobError:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error) or kind.__name__
    except Exception:
        message = kind.__name__  # an exception that cannot even say what it is
    return JobError(code, _plain(message)[:MESSAGE_LIMIT], retryable, type=name, traceback=_traceback(error))


def _traceback(error: BaseException) -> str:
    """The user's part of it: the last frames, without ours at the top."""
    lines = traceback.TracebackException(
        type(error), error, _users(error.__traceback__), limit=-FRAMES, compact=True
    ).format()
    text = _plain("".join(lines))
    if len(text) <= TRACEBACK_LIMIT:
        return text
    half = TRACEBACK_LIMIT // 2
    return f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _users(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _plain(text: str) -> str:
    """Without lone surrogates, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()
