"""The application of the tests of isolated tasks: children import it anew."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ropeway import App, Context, Fail, File, Retry, RetryAfter
from ropeway.runtime import given

__all__ = ["app"]

ONCE = Retry(max_attempts=1)

app = App()


class Model:
    """Something that is slow to load. `opened_in` is the process that did."""

    def __init__(self) -> None:
        self.opened_in = os.getpid()
        self.calls = 0


@app.resource
def model() -> Iterator[Model]:
    yield Model()
    mark = os.environ.get("CLOSED_MARK")
    if mark == "hang":
        threading.Event().wait()
    if mark:
        Path(mark).touch()


@app.task(run="process", queue="pids", children=1)
def pid() -> int:
    return os.getpid()


@app.task(run="process", queue="model", children=1)
def count(*, model: Model = given) -> list[int]:
    """The process, the one that opened the model, and how many jobs it has had."""
    model.calls += 1
    return [os.getpid(), model.opened_in, model.calls]


@app.resource
def weights() -> str:
    fault = os.environ.get("BROKEN_MODEL")
    if fault == "die":
        os._exit(4)
    if fault:
        raise OSError("no such weights")
    return "weights"


@app.task(run="process", queue="broken", children=1)
def weigh(*, weights: str = given) -> int:
    return len(weights)


class Facts(msgspec.Struct):
    job_id: str
    attempt: int
    tenant: str
    queue: str
    task: str
    timeout: float | None
    cancelled: bool
    stop_reason: str | None


@app.task(run="process", queue="context", children=1, timeout=60)
def facts(*, ctx: Context = given) -> Facts:
    return Facts(ctx.job_id, ctx.attempt, ctx.tenant, ctx.queue, ctx.task, ctx.timeout, ctx.cancelled, ctx.stop_reason)


@app.task(run="process", queue="context", children=1)
def tells(*, ctx: Context = given) -> None:
    ctx.progress(0.5, step="half")
    ctx.log("a line", level="warning")
    ctx.usage(tokens=3)
    ctx.usage(tokens=4, model="m")
    ctx.emit("one ")
    ctx.emit("two")
    for step in range(1000):
        ctx.progress(step / 1000)
    ctx.progress(1.0, step="all")


@app.task(run="process", queue="context", children=1)
def keeps(*, ctx: Context = given) -> list[str]:
    """An artifact from bytes, and one from a path."""
    first = ctx.artifact("plot.txt", b"bytes", "text/plain")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.bin")
        path.write_bytes(b"of a path")
        second = ctx.artifact("made.bin", path)
    return [first.id, second.id, str(first.file.size)]


@app.task(run="process", queue="context", children=1)
def hears(*, ctx: Context = given) -> list[str]:
    heard = [ctx.input_blocking(), ctx.input_blocking(30)]
    try:
        ctx.input_blocking(0.001)
    except TimeoutError:
        heard.append("no more")
    return heard


@app.task(run="process", queue="context", children=1)
def awaits(*, ctx: Context = given) -> str:
    try:
        asyncio.run(ctx.to_thread(print))
    except RuntimeError as error:
        return str(error)
    return "it was not refused"


@app.task(run="process", queue="context", children=1, retry=Retry(max_attempts=2, base_s=0.001))
def steps(*, ctx: Context = given) -> list[int]:
    """The attempt in which the step was done, and this one."""
    done = ctx.step_blocking("first", lambda: ctx.attempt)
    if ctx.attempt == 1:
        raise ValueError("once more")
    return [done, ctx.attempt]


@app.task(run="process", queue="context", children=1)
def naps(*, ctx: Context = given) -> int:
    if not ctx.step_blocking("slept", lambda: True):
        return 0
    if Path(os.environ["NAP_MARK"]).exists():
        return ctx.attempt
    Path(os.environ["NAP_MARK"]).touch()
    ctx.snooze(0, reason="tired")
    raise AssertionError("it went on")


@app.task(run="process", queue="context", children=1, resumable=True, retry=Retry(max_attempts=2, base_s=0.001))
def goes_on(*, ctx: Context = given) -> Iterator[str]:
    if ctx.partial is None:
        yield "half "
        raise ValueError("in the middle")
    yield f"after {ctx.partial!r}"


@app.task(run="process", queue="files", children=1)
def reads(path: Path, file: File, text: str) -> list[str]:
    return [path.read_text(), file.wait_for_path().read_text(), text]


@app.task(run="process", queue="streams", children=1)
def words(text: str) -> Iterator[str]:
    for word in text.split():
        yield f"{word} "


@app.task(run="process", queue="streams", children=1)
def numbers(upto: int) -> Iterator[int]:
    yield from range(upto)


@app.task(run="process", queue="faults", children=1, retry=ONCE)
def raises(what: str) -> None:
    match what:
        case "value":
            raise ValueError("no such thing")
        case "fail":
            raise Fail("for good", code="own_code")
        case "again":
            raise RetryAfter(5.0, "later")
        case "memory":
            raise MemoryError
        case "exit":
            sys.exit("as a program does")


@app.task(run="process", queue="garbage", children=1, max_crashes=1)
def garbles() -> None:
    """Writes to whatever is open, the worker's socket among it."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"\0\0\0\4spam")
        except OSError:
            continue
    threading.Event().wait()


@app.task(run="process", queue="garbage", children=1, max_crashes=1)
def cuts_off() -> None:
    os.closerange(3, 64)
    threading.Event().wait()


@app.task(run="process", queue="faults", children=1, retry=ONCE)
def odd() -> object:
    return object()


@app.task(run="process", queue="crashes", children=2, retry=Retry(max_attempts=9, base_s=0.001))
def crash(how: str) -> None:
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "clean":
            os._exit(0)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()


@app.task(run="process", queue="crashes", children=2, retry=Retry(max_attempts=9, base_s=0.001))
def crash_once(*, ctx: Context = given) -> int:
    if ctx.attempt == 1:
        os._exit(9)
    return ctx.attempt


@app.task(run="process", queue="held", children=2)
def hold(path: str, *, ctx: Context = given) -> str:
    """Runs until a file is there; tells its process by another."""
    Path(path + ".pid").write_text(str(os.getpid()))
    Path(path + ".began").touch()
    while not Path(path).exists():
        time.sleep(0.002)
    return "done"


@app.task(run="process", queue="heeds", children=1)
def heeds(path: str, *, ctx: Context = given) -> str:
    """Stops when it is asked to."""
    ctx.emit("so far")
    Path(path + ".began").touch()
    while not ctx.cancelled:
        time.sleep(0.002)
    Path(path + ".why").write_text(str(ctx.stop_reason))
    ctx.check_cancelled()
    return "not stopped"


@app.task(run="process", queue="deaf", children=1)
def deaf(path: str) -> None:
    """Looks at nothing; but Python can interrupt it."""
    Path(path + ".pid").write_text(str(os.getpid()))
    Path(path + ".began").touch()
    try:
        while True:
            time.sleep(60)
    except asyncio.CancelledError:
        Path(path + ".interrupted").touch()
        raise


@app.task(run="process", queue="stuck", children=1)
def stuck(path: str) -> None:
    """Holds the interpreter for good: only the kernel can end it."""
    Path(path + ".pid").write_text(str(os.getpid()))
    Path(path + ".began").touch()
    sum(itertools.repeat(0))  # a loop in C, which looks at no signals


@app.task(run="process", queue="starts", children=1)
def starts(path: str) -> None:
    """Starts another process, and is stuck."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(path + ".other").write_text(str(other.pid))
    Path(path + ".began").touch()
    sum(itertools.repeat(0))  # a loop in C, which looks at no signals


@app.task(run="process", queue="hogs", children=1, memory_mib=256, retry=ONCE)
def hog(mib: int) -> int:
    """Takes so much memory, and waits to be found out."""
    held = bytearray(mib << 20)
    for page in range(0, len(held), 4096):
        held[page] = 1
    if mib > 256:
        threading.Event().wait(60)
    return len(held) >> 20


@app.task(run="process", queue="bounded", children=1, data_mib=400, retry=ONCE)
def bounded(mib: int) -> int:
    return len(bytearray(mib << 20)) >> 20


@app.task(run="process", queue="few", children=1, max_jobs_per_child=2)
def few() -> int:
    return os.getpid()


@app.task(run="process", queue="fat", children=1, max_mib_per_child=128)
def fat(mib: int) -> int:
    """Leaves so much behind in its process."""
    global _left
    _left = bytearray(mib << 20)
    for page in range(0, len(_left), 4096):
        _left[page] = 1
    return os.getpid()


_left = bytearray()


@app.task(run="process", queue="gpu", device="gpu")
def seen(path: str = "") -> str:
    """The devices that this process sees. With a path, it waits until a file is there."""
    if path:
        Path(f"{path}.{os.getpid()}").touch()
        while not Path(path).exists():
            time.sleep(0.002)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@app.task(run="process", queue="blind", device="cpu", children=1)
def blind() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@app.task(queue="llama", needs={"model": "llama-8b"})
async def generate() -> str:
    return "generated"


@app.task(queue="plain")
async def plain() -> str:
    return "plain"


@app.task(run="process", queue="context", children=1)
def shout(text: str, *, ctx: Context = given) -> list[str]:
    return [text.upper(), *(one.id for one in ctx.after if one.succeeded)]


@app.task(run="process", queue="context", children=1)
def delegates(*, ctx: Context = given) -> list[list[str]]:
    """What its children came to, in their own processes."""
    first = ctx.submit_blocking(shout, "one")
    second = ctx.submit_blocking("shout", text="two")
    return ctx.gather_blocking(first, second)


@app.task(run="process", queue="context", children=1)
def loses(*, ctx: Context = given) -> list[str]:
    child = ctx.submit_blocking("no_such_task")
    return ctx.gather_blocking(child)


@app.task(run="process", queue="context", children=1)
def approves(*, ctx: Context = given) -> list[int | str]:
    draft = ctx.step_blocking("draft", os.getpid)
    return [draft, ctx.wait_input_blocking(3600)]
